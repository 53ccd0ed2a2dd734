"""The oracle: the Hugging Face model with a recipe's adapter in its weights, and nothing of ours.

W + sum_j g_j B_j A_j, expert by expert in plain PyTorch; of the product it reads the pool's file
and the recipe's gates.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from loragen.method.pool import Pool
from loragen.recipe import Recipe

Weights = dict[str, Tensor]
"""Parameters of the model by name: those that differ from its own."""

_KEPT: Final = 32
_BATCH: Final = 24


class Oracle:
    """Gives the logits that a worker must compute."""

    def __init__(self, model: Path, pool: Pool) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self._own: Weights = dict(self._model.named_parameters())
        self._pool = pool
        self._adapted: OrderedDict[str, Weights] = OrderedDict()  # by recipe, longest unused first

    @torch.inference_mode()
    def logits(self, recipe: Recipe | None, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return the logits [tokens, vocabulary] after each token of each sequence."""
        weights = self._weights(recipe)
        by_length = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
        found: dict[int, Tensor] = {}
        for start in range(0, len(by_length), _BATCH):
            batch = by_length[start : start + _BATCH]
            tokens_BT = pad_sequence([torch.tensor(sequences[i]) for i in batch], batch_first=True)
            # Padding is on the right, where causal attention never looks.
            out = torch.func.functional_call(
                self._model, weights, (tokens_BT,), {"use_cache": False}
            )
            for index, logits_TV in zip(batch, out.logits, strict=True):
                found[index] = logits_TV[: len(sequences[index])]
        return [found[index] for index in range(len(sequences))]

    def _weights(self, recipe: Recipe | None) -> Weights:
        if recipe is None:
            return {}
        if recipe.id not in self._adapted:
            self._adapted[recipe.id] = self._materialise(recipe)
            if len(self._adapted) > _KEPT:
                self._adapted.popitem(last=False)
        self._adapted.move_to_end(recipe.id)
        return self._adapted[recipe.id]

    def _materialise(self, recipe: Recipe) -> Weights:
        rank, linears = self._pool.spec.rank, self._pool.spec.linears
        weights = {}
        for (layer, linear), (a_DR, b_RF) in self._pool.tensors.items():
            gates = recipe.gates[layer]  # [1 or M, n]: one for all linears, or one each
            gates_n = gates[linears.index(linear) if len(gates) > 1 else 0]
            name = f"model.layers.{layer}.mlp.{linear}_proj.weight"
            update_DF = torch.zeros(a_DR.shape[0], b_RF.shape[1])
            for expert, gate in enumerate(gates_n.tolist()):
                own = slice(expert * rank, (expert + 1) * rank)
                update_DF += gate * (a_DR[:, own] @ b_RF[own])
            weights[name] = self._own[name] + update_DF.T
        return weights
