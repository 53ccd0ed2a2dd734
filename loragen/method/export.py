"""Export: one recipe as a classic adapter, for tools that know nothing of pools.

The adapter of a task is (A * g, B) per layer and linear: rank R, scale 1. Serving never builds
it; it is a PEFT folder to take away, merged weights, and the oracle of the parity tests.
"""

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from loragen.method.pool import Pool
from loragen.recipe import Recipe

_BLOCK: Final = {
    **dict.fromkeys(("gate", "up", "down"), "mlp"),
    **dict.fromkeys(("q", "k", "v", "o"), "self_attn"),
}
"""Where Llama-like models keep each linear."""


def materialise(
    recipe: Recipe, pool: Pool
) -> dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]:
    """Return the adapter (A * g [D, R], B [R, F]) per layer and linear.

    Raises:
        RecipeMismatch: compiled for another pool.
        RecipeInvalid: a shape that this pool cannot mix.
    """
    spec = pool.spec
    linears = len(spec.linears)
    recipe.require_pool(pool.id, layers=spec.layers, linears=linears, experts=spec.experts)
    gates_LMR = torch.from_numpy(recipe.expand(linears=linears, rank=spec.rank))
    return {
        (layer, linear): (a_DR * gates_LMR[layer, spec.linears.index(linear)], b_RF)
        for (layer, linear), (a_DR, b_RF) in pool.tensors.items()
    }


def module_path(layer: int, linear: str) -> str:
    """Return the dotted path of a linear in a Llama-like causal LM."""
    return f"model.layers.{layer}.{_BLOCK[linear]}.{linear}_proj"


def save_adapter(recipe: Recipe, pool: Pool, folder: Path, *, edge: str) -> None:
    """Write a PEFT adapter folder; `edge` is what it names as its base model."""
    tensors = {}
    for (layer, linear), (a_DR, b_RF) in materialise(recipe, pool).items():
        path = f"base_model.model.{module_path(layer, linear)}"
        tensors[f"{path}.lora_A.weight"] = a_DR.mT.contiguous()
        tensors[f"{path}.lora_B.weight"] = b_RF.mT.contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": edge,
        "r": pool.spec.columns,
        "lora_alpha": pool.spec.columns,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": [f"{linear}_proj" for linear in pool.spec.linears],
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    text = json.dumps(config, indent=2) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


@torch.no_grad()
def merge(recipe: Recipe, pool: Pool, model: PreTrainedModel) -> None:
    """Add the adapter to the weights of an edge model, in place: W += A diag(g) B."""
    for (layer, linear), (a_DR, b_RF) in materialise(recipe, pool).items():
        weight_FD = model.get_submodule(module_path(layer, linear)).weight
        assert isinstance(weight_FD, torch.Tensor)
        weight_FD += (a_DR @ b_RF).mT.to(weight_FD.dtype)
