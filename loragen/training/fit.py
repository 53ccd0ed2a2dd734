"""Fitting through a frozen edge model: pools as parameters, the loss under gates, the control."""

import copy
import logging
from typing import Final

import torch
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.method.edge import EdgeModel
from loragen.method.pool import Experts
from loragen.suite.splits import Catalogue
from loragen.training.batches import Batch, Renderer, StreamSpec, training_batches
from loragen.training.optimizer import Optimizer, Schedule
from loragen.training.passes import answer_loss, recipe_states
from loragen.training.progress import Progress

logger = logging.getLogger(__name__)

LINEARS: Final = ("gate", "up", "down")
"""The paper's targets: the three linears of the FFN."""


class TrainablePool(nn.Module):
    """Experts as parameters: A random, B zero, so that training starts at the plain edge model."""

    def __init__(self, edge: LlamaForCausalLM, columns: int) -> None:
        super().__init__()
        self.parameters_by_name = nn.ParameterDict()
        for layer in range(edge.config.num_hidden_layers):
            for linear in LINEARS:
                module = edge.get_submodule(f"model.layers.{layer}.mlp.{linear}_proj")
                assert isinstance(module, nn.Linear)
                D, F = module.in_features, module.out_features
                self.parameters_by_name[f"{layer}/{linear}/A"] = torch.randn(D, columns) * D**-0.5
                self.parameters_by_name[f"{layer}/{linear}/B"] = torch.zeros(columns, F)
        self._layers = edge.config.num_hidden_layers

    def experts(self) -> Experts:
        """Return (A [D, R], B [R, F]) per layer and linear."""
        named = self.parameters_by_name
        return {
            (layer, linear): (named[f"{layer}/{linear}/A"], named[f"{layer}/{linear}/B"])
            for layer in range(self._layers)
            for linear in LINEARS
        }

    @torch.no_grad()
    def load(self, experts: Experts) -> None:
        """Take over experts of a saved pool, as the first where this pool has more."""
        for key, (a_DR, b_RF) in self.experts().items():
            first_a, first_b = experts[key]
            a_DR[:, : first_a.shape[1]] = first_a
            b_RF[: first_b.shape[0]] = first_b

    def freeze_first(self, columns: int) -> None:
        """Keep the first columns as they are, whatever the loss says."""
        for a_DR, b_RF in self.experts().values():
            a_DR.register_hook(lambda grad: grad.index_fill(1, torch.arange(columns), 0.0))
            b_RF.register_hook(lambda grad: grad.index_fill(0, torch.arange(columns), 0.0))


def fit_multitask(
    edge: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    catalogue: Catalogue,
    *,
    rank: int,
    steps: int,
    seed: int,
) -> TrainablePool:
    """Train the control: one LoRA for all prompts, which it never sees.

    What it reaches is what any adapter can know of the suite without reading a prompt.
    """
    torch.manual_seed(seed)
    edge.requires_grad_(False)
    pool = TrainablePool(edge, rank)
    edge_model = EdgeModel(copy.deepcopy(edge), LINEARS, pool.experts())
    optimizer = Optimizer([], [(pool.parameters(), 5e-3)], 0.0)
    renderer = Renderer(tokenizer)
    batches = training_batches(renderer, StreamSpec(catalogue, bare_share=0.0), f"multitask/{seed}")
    schedule = Schedule(steps)
    progress = Progress(logger, "multi-task LoRA", steps)
    for step, batch in zip(range(steps), batches, strict=False):
        shape = (len(batch.prompts), edge.config.num_hidden_layers, len(LINEARS), rank)
        loss = recipe_loss(edge_model, batch, torch.ones(shape), renderer.bos_id)
        optimizer.step(loss, schedule.factor(step))
        progress.add(step, loss.item())
    return pool


def to_columns(gates_BLMN: torch.Tensor, rank: int) -> torch.Tensor:
    """Repeat gates over linears (L0) and rank: [B, L, M, N] to [B, L, len(LINEARS), R]."""
    B, L, _, N = gates_BLMN.shape
    return gates_BLMN.expand(B, L, len(LINEARS), N).repeat_interleave(rank, -1)


def recipe_loss(
    edge: EdgeModel, batch: Batch, gates_BLMR: torch.Tensor, bos_id: int
) -> torch.Tensor:
    """Return the mean cross-entropy of answer tokens under gates."""
    states = recipe_states(edge, batch, gates_BLMR, bos_id)
    return answer_loss(edge.model, states, batch.targets)
