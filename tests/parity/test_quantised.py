"""A base of eight-bit weights: the worker mixes recipes into it, and leaves the rest as it was."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from loragen.method.edge import linears_of
from loragen.recipe import Recipe
from tests.fakes.engine import Answer, Scores, running_engine
from tests.fakes.tiny import TinyEdge
from tests.parity.oracle import base_model, gates_of, reference

pytestmark = pytest.mark.vllm

EXACT = 1e-4
"""Where sums in another order round no input of a next layer the other way."""
ROUNDED = 0.5
"""Where they do: by a 127th."""


class EightBitLinear(nn.Module):
    """x W as vLLM's kernel multiplies it here, which saturates where a processor has no VNNI."""

    def __init__(self, weight_FD: Tensor) -> None:
        from vllm import _custom_ops as ops

        super().__init__()
        integers, self.scales = rounded(weight_FD)  # kept, because the handler points to them
        self.handler = ops.create_onednn_scaled_mm(
            integers.to(torch.int8).t(), self.scales, torch.float32, True, False, 32
        )

    def forward(self, x: Tensor) -> Tensor:
        from vllm import _custom_ops as ops

        x_TD = x.flatten(0, -2)
        x_q, x_s, x_zp = ops.onednn_scaled_int8_quant(x_TD, None, None, True)
        out_TF = torch.empty(len(x_TD), self.handler.n)
        ops.onednn_scaled_mm(self.handler, x_q, out_TF, x_s, x_zp, None, None)
        out: Tensor = out_TF.unflatten(0, x.shape[:-1])
        return out


class WithUpdate(nn.Module):
    """The same, with one task's update of its input before it was rounded."""

    def __init__(self, base: nn.Module, a_DR: Tensor, gates_R: Tensor, b_RF: Tensor) -> None:
        super().__init__()
        self.base, self.a_DR, self.b_RF = base, a_DR * gates_R, b_RF

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + x @ self.a_DR @ self.b_RF
        return out


def test_a_mixed_batch_over_eight_bit_weights_equals_the_sum_of_base_and_update(
    tmp_path: Path,
) -> None:
    tiny = TinyEdge.make(tmp_path)
    base = base_model(tiny)
    quantise(tiny.model)
    recipes = [None, tiny.recipe(1), tiny.recipe(2)]
    random = np.random.default_rng(0)
    prompts = [random.integers(0, 250, size=40 + 5 * i).tolist() for i in range(len(recipes))]
    with running_engine(tiny, "float32", skip_tokenizer_init=True) as engine:
        answers = engine.generate(prompts, recipes)
    for prompt, recipe, answer in zip(prompts, recipes, answers, strict=True):
        errors = difference(quantised(base, tiny, recipe), prompt, answer)
        assert errors.min() <= EXACT
        assert errors.max() <= ROUNDED
    for prompt, answer in zip(prompts[1:], answers[1:], strict=True):
        assert np.median(difference(quantised(base, tiny, None), prompt, answer)) > 4 * ROUNDED


def difference(model: PreTrainedModel, prompt: list[int], answer: Answer) -> Scores:
    """Return by how much the log-probabilities of each step differ at most."""
    scores = reference(model, prompt + answer.tokens)[len(prompt) - 1 : -1]
    found: Scores = np.abs(scores - answer.scores).max(axis=1)
    return found


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows as integers of eight bits, and the scale [rows, 1] of each."""
    scales = rows.abs().amax(-1, keepdim=True) / 127
    return (rows / scales).round(), scales


def quantise(folder: Path) -> None:
    """Rewrite a model as compressed-tensors stores W8A8, its inputs scaled token by token."""
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        integers, tensors[f"{name}_scale"] = rounded(tensors[name])
        tensors[name] = integers.to(torch.int8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    eight_bits = {"num_bits": 8, "type": "int", "symmetric": True}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**eight_bits, "strategy": "channel", "dynamic": False},
                "input_activations": {**eight_bits, "strategy": "token", "dynamic": True},
            }
        },
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))


def quantised(base: PreTrainedModel, tiny: TinyEdge, recipe: Recipe | None) -> PreTrainedModel:
    """Return the model of eight-bit weights with a recipe's update beside them."""
    model = copy.deepcopy(base)
    places = {module: key for key, module in linears_of(model, tiny.pool.spec.linears).items()}
    for name, module in list(model.named_modules()):
        if not name.endswith("_proj"):
            continue
        made: nn.Module = EightBitLinear(module.weight.data)
        if recipe is not None and module in places:
            layer, linear = places[module]
            a_DR, b_RF = tiny.pool.tensors[layer, linear]
            made = WithUpdate(made, a_DR, gates_of(tiny, recipe, layer, linear), b_RF)
        model.set_submodule(name, made)
    return model
