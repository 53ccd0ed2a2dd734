"""Under tensor parallelism the ranks' parts of an FFN add up to the one with merged weights.

No process of its own for a rank: vLLM's layers are told which they are, cut their own weights, and
their outputs are added here instead of in an all-reduce.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor import parameter
from vllm.model_executor.layers import linear
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, RowParallelLinear

from tests.fakes.tiny import FFN_WIDTH, LAYERS, LINEARS, RANK, WIDTH, TinyEdge
from workers.layers import LayerInstaller
from workers.product import StepSlots

pytestmark = pytest.mark.vllm

TOKENS = 5
SLOTS = 2
ROWS = [1, SLOTS, 0, 1, 0]
"""The slot of every token; SLOTS is that of tokens without a task."""

Weights = dict[tuple[int, str], Tensor]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Return the base weights [in, out] of all linears."""
    random = torch.Generator().manual_seed(0)
    shapes = {"gate": (WIDTH, FFN_WIDTH), "up": (WIDTH, FFN_WIDTH), "down": (FFN_WIDTH, WIDTH)}
    return {
        (layer, name): torch.randn(shapes[name], generator=random) / shapes[name][0] ** 0.5
        for layer in range(LAYERS)
        for name in LINEARS
    }


@pytest.fixture(scope="module")
def gates(tiny: TinyEdge) -> Tensor:
    """Return the gates [L, slots + 1, M, R] of two recipes and none."""
    recipes = [tiny.recipe(seed).expand(linears=len(LINEARS), rank=RANK) for seed in range(SLOTS)]
    rows = [torch.tensor(recipe) for recipe in recipes]
    return torch.stack([*rows, torch.zeros_like(rows[0])], dim=1)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_add_up_to_merged_weights(
    tiny: TinyEdge, weights: Weights, gates: Tensor, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_TD = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    step = StepSlots(tokens=TOKENS, zero_row=SLOTS, device=torch.device("cpu"))
    step.rows_T.copy_(torch.tensor(ROWS))
    parts: list[list[Tensor]] = []
    for rank in range(ranks):
        model = rank_of_model(weights, rank, ranks, monkeypatch)
        LayerInstaller(tiny.pool, gates, step).install(model)
        parts.append([ffn(model, layer, x_TD) for layer in range(LAYERS)])
    for layer in range(LAYERS):
        together_TD = torch.stack([part[layer] for part in parts]).sum(dim=0)
        whole_TD = merged_ffn(tiny, weights, gates, layer, x_TD)
        torch.testing.assert_close(together_TD, whole_TD, rtol=1e-4, atol=1e-4)


def rank_of_model(
    weights: Weights, rank: int, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> nn.Module:
    """Return what one rank holds of a model's FFNs, cut by vLLM's own loading."""
    for module in (linear, parameter):
        monkeypatch.setattr(module, "get_tensor_model_parallel_rank", lambda: rank)
        monkeypatch.setattr(module, "get_tensor_model_parallel_world_size", lambda: ranks)
    layers = []
    with set_current_vllm_config(VllmConfig()):
        for layer in range(LAYERS):
            gate_up = MergedColumnParallelLinear(WIDTH, [FFN_WIDTH] * 2, bias=False)
            down = RowParallelLinear(FFN_WIDTH, WIDTH, bias=False, reduce_results=False)
            load(gate_up, (weights[layer, "gate"], 0), (weights[layer, "up"], 1))
            load(down, (weights[layer, "down"],))
            mlp = nn.ModuleDict({"gate_up_proj": gate_up, "down_proj": down})
            layers.append(nn.ModuleDict({"mlp": mlp}))
    return nn.ModuleDict({"layers": nn.ModuleList(layers)})


def load(layer: Any, *parts: tuple[Any, ...]) -> None:
    """Load the weights of a layer's linears, each with its place if there are several."""
    for weight_DF, *place in parts:
        layer.weight.weight_loader(layer.weight, weight_DF.T, *place)
    layer.quant_method.process_weights_after_loading(layer)


def ffn(model: nn.Module, layer: int, x_TD: Tensor) -> Tensor:
    """Return what one rank adds to a layer's FFN."""
    mlp = model.get_submodule(f"layers.{layer}.mlp")
    gate_TF, up_TF = mlp.get_submodule("gate_up_proj")(x_TD)[0].chunk(2, dim=-1)
    out_TD: Tensor = mlp.get_submodule("down_proj")(nn.functional.silu(gate_TF) * up_TF)[0]
    return out_TD


def merged_ffn(tiny: TinyEdge, weights: Weights, gates: Tensor, layer: int, x_TD: Tensor) -> Tensor:
    """Return the FFN's output with W + A diag(g) B in place of W, token by token."""
    rows = []
    for x_D, slot in zip(x_TD, ROWS, strict=True):
        gate_DF, up_DF, down_FD = (
            weights[layer, name] + a @ (gates[layer, slot, index][:, None] * b)
            for index, name in enumerate(LINEARS)
            for a, b in (tiny.pool.tensors[layer, name],)
        )
        rows.append((nn.functional.silu(x_D @ gate_DF) * (x_D @ up_DF)) @ down_FD)
    return torch.stack(rows)
