"""Generator training: cloud model, meta tokens, router and pool, end to end through a frozen edge.

The cloud model starts as a copy of the edge model and reads the prompt; the edge model reads only
the messages and answers under the gates. The loss is the answers' cross-entropy, and for L0 the
paper's balance term (alpha = 0.01).
"""

import copy
import logging
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.method.edge import EdgeModel
from loragen.method.generator import Reader
from loragen.method.pool import Experts
from loragen.method.router import RouterSpec, balance_loss
from loragen.recipe import Level
from loragen.suite.demo import DEMO
from loragen.training.batches import Batch, Renderer, StreamSpec, training_batches
from loragen.training.optimizer import Optimizer, Schedule, split_parameters
from loragen.training.passes import answer_loss, recipe_states
from loragen.training.progress import Progress

logger = logging.getLogger(__name__)

LINEARS: Final = ("gate", "up", "down")
"""The paper's targets: the three linears of the FFN."""
BALANCE_ALPHA: Final = 0.01


@dataclass(frozen=True, slots=True)
class FitSpec:
    """Recipe level, pool shape and schedule."""

    level: Level
    experts: int
    rank: int
    steps: int
    top_k: int = 2
    matrix_lr: float = 0.01
    pool_lr: float = 5e-3
    router_lr: float = 1.5e-3


DENSE: Final = FitSpec(Level.DENSE, experts=64, rank=1, steps=800)
PAPER: Final = FitSpec(Level.PAPER, experts=8, rank=16, steps=1000)


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


def fit_generator(
    edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, spec: FitSpec, seed: int
) -> tuple[Reader, TrainablePool]:
    """Train a generator and its pool for an edge model, whose weights stay as they are."""
    torch.manual_seed(seed)
    edge.requires_grad_(False)
    pool = TrainablePool(edge, spec.experts * spec.rank)
    edge_model = EdgeModel(copy.deepcopy(edge), LINEARS, pool.experts())
    reader = Reader(copy.deepcopy(edge.model).requires_grad_(True), _router_spec(edge, spec))
    matrices, others = split_parameters(reader.cloud)
    own = [reader.meta_LD, *reader.router.parameters(), *others]
    optimizer = Optimizer(
        matrices, [(pool.parameters(), spec.pool_lr), (own, spec.router_lr)], spec.matrix_lr
    )
    renderer = Renderer(tokenizer)
    batches = training_batches(
        renderer, StreamSpec(DEMO, bare_share=0.0), f"{spec.level.name}/{seed}"
    )
    schedule = Schedule(spec.steps)
    progress = Progress(logger, f"generator {spec.level.name.lower()}", spec.steps)
    reader.train()
    for step, batch in zip(range(spec.steps), batches, strict=False):
        gates_BLMN = reader(batch.prompts, batch.prompts != renderer.pad_id)
        loss = recipe_loss(edge_model, batch, to_columns(gates_BLMN, spec.rank), renderer.bos_id)
        progress_loss = loss.item()
        if spec.level is Level.PAPER:
            loss = loss + BALANCE_ALPHA * balance_loss(gates_BLMN)
        optimizer.step(loss, schedule.factor(step))
        progress.add(step, progress_loss)
    return reader.eval(), pool


def fit_multitask(
    edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, *, rank: int, steps: int, seed: int
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
    batches = training_batches(renderer, StreamSpec(DEMO, bare_share=0.0), f"multitask/{seed}")
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


def _router_spec(edge: LlamaForCausalLM, spec: FitSpec) -> RouterSpec:
    hidden = int(edge.config.hidden_size)
    return RouterSpec(
        level=spec.level,
        cloud_hidden=hidden,
        hidden=hidden,
        layers=int(edge.config.num_hidden_layers),
        linears=len(LINEARS),
        experts=spec.experts,
        top_k=min(spec.top_k, spec.experts),
    )
