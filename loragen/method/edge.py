"""Edge model: a stock Hugging Face causal LM whose linears take gates, row by row.

This is the in-process reference: training runs through it, and workers must agree with it. It
changes no code of the model: hooks add `gatespace.delta` to the outputs of the pool's linears.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicLayer

from loragen.errors import ArtifactCorrupt
from loragen.method import gatespace
from loragen.method.pool import Experts, Pool, edge_fingerprint

CACHE_BYTES: Final = 1 << 30
"""Keys and values that may be held at once, so that memory does not follow the rows."""
_LINEAR: Final = re.compile(r"layers\.(\d+)\..*\b(\w+)_proj$")
"""Where Llama-like models keep linear `gate` of layer 2: model.layers.2.mlp.gate_proj."""


class EdgeModel:
    """Runs batches in which every row has its own gates, or none."""

    def __init__(self, model: PreTrainedModel, linears: Sequence[str], experts: Experts) -> None:
        self.model = model
        self._experts = experts
        self._gates_BLMR: torch.Tensor | None = None
        self._hook(tuple(linears))

    @classmethod
    def load(cls, folder: Path, pool: Pool) -> Self:
        """Load an edge model in float32, with the pool trained for it.

        Raises:
            ArtifactCorrupt: the folder is not the edge model that the pool was trained for, or its
                model makes logits in a way that `head` does not know.
        """
        if edge_fingerprint(folder) != pool.spec.edge_fingerprint:
            raise ArtifactCorrupt(f"{folder} is not the edge model of pool {pool.id[:12]}")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        edge = cls(model.eval(), pool.spec.linears, pool.tensors)
        # What a model is published to be sampled with (penalties, say) is not for what we draw.
        model.generation_config = GenerationConfig(eos_token_id=edge.end_ids)
        edge._check_head(folder)
        return edge

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end an answer, first those that it is published to be sampled with."""
        found: list[int | None] = []
        for config in (self.model.generation_config, self.model.config):
            ids: int | list[int] | None = getattr(config, "eos_token_id", None)
            found += ids if isinstance(ids, list) else [ids]
        return [each for each in dict.fromkeys(found) if each is not None]

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        embedding: Any = self.model.get_input_embeddings()
        return int(embedding.weight.shape[0])

    @property
    def cache_tokens(self) -> int:
        """How many tokens' keys and values fit in `CACHE_BYTES`."""
        config = self.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        per_token: int = 2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize
        return max(1, CACHE_BYTES // per_token)

    @property
    def keeps_all(self) -> bool:
        """Whether every layer keeps keys and values of all tokens, so that rows may share some."""
        layers = DynamicCache(config=self.model.config).layers
        return all(type(layer) is DynamicLayer for layer in layers)

    def states(self, ids_BT: torch.Tensor, gates_BLMR: torch.Tensor | None = None) -> torch.Tensor:
        """Return last hidden states [B, T, D] of rows padded on the right."""
        self._gates_BLMR = gates_BLMR
        try:
            output = self.model.get_decoder()(input_ids=ids_BT, use_cache=False)
        finally:
            self._gates_BLMR = None
        states_BTD: torch.Tensor = output.last_hidden_state
        return states_BTD

    def go_on(
        self,
        ids_BT: torch.Tensor,
        cache: Cache,
        gates_BLMR: torch.Tensor | None = None,
        *,
        mask_BT: torch.Tensor | None = None,
        places_BT: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return last hidden states [B, T, D] of tokens behind those of a cache; it takes them in.

        `mask_BT` is of all tokens, those of the cache too, and tells padding; `places_BT` says
        where each new token stands. Both may be left out where nothing is padded on the left.
        """
        self._gates_BLMR = gates_BLMR
        try:
            output = self.model.get_decoder()(
                input_ids=ids_BT,
                attention_mask=mask_BT,
                position_ids=places_BT,
                past_key_values=cache,
                use_cache=True,
            )
        finally:
            self._gates_BLMR = None
        states_BTD: torch.Tensor = output.last_hidden_state
        return states_BTD

    def logits(self, ids_BT: torch.Tensor, gates_BLMR: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits [B, T, V] of rows padded on the right."""
        return self.head(self.states(ids_BT, gates_BLMR))

    def head(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits [.., V] of last hidden states [.., D]."""
        config = self.model.config
        logits: torch.Tensor = self.model.get_output_embeddings()(states)
        logits = logits * (getattr(config, "logit_scale", None) or 1.0)  # Cohere
        logits = logits / (getattr(config, "logits_scaling", None) or 1.0)  # Granite
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        gates_BLMR: torch.Tensor | None = None,
        *,
        max_tokens: int = 64,
    ) -> list[list[int]]:
        """Continue token ids greedily until an end token; the answers hold no end token."""
        ended = self.generate_ended(prompts, gates_BLMR, max_tokens=max_tokens)
        end_ids = set(self.end_ids)
        return [answer[:-1] if set(answer[-1:]) & end_ids else answer for answer in ended]

    @torch.inference_mode()
    def generate_ended(
        self,
        prompts: Sequence[Sequence[int]],
        gates_BLMR: torch.Tensor | None = None,
        *,
        max_tokens: int = 64,
    ) -> list[list[int]]:
        """Continue token ids greedily, with the end token where they get to one.

        Every step reads the whole row again: slow, and free of any cache that could be wrong.
        """
        end_ids = self.end_ids
        rows = [list(prompt) for prompt in prompts]
        open_rows = list(range(len(rows)))
        for _ in range(max_tokens):
            ids_BT = _pad_right([rows[row] for row in open_rows])
            gates = None if gates_BLMR is None else gates_BLMR[open_rows]
            last = torch.tensor([len(rows[row]) - 1 for row in open_rows])
            states_BD = self.states(ids_BT, gates)[torch.arange(len(open_rows)), last]
            chosen = self.head(states_BD).argmax(-1).tolist()
            for row, token in zip(open_rows, chosen, strict=True):
                rows[row].append(token)
            open_rows = [row for row in open_rows if rows[row][-1] not in end_ids]
            if not open_rows:
                break
        return [row[len(prompt) :] for row, prompt in zip(rows, prompts, strict=True)]

    @torch.inference_mode()
    def _check_head(self, folder: Path) -> None:
        """Hold `head` to the model itself: losses would be of other logits than what is served."""
        ids_BT = torch.zeros(1, 2, dtype=torch.long)
        own = self.model(input_ids=ids_BT, use_cache=False).logits
        if not torch.allclose(self.logits(ids_BT), own, rtol=1e-3, atol=1e-3):
            raise ArtifactCorrupt(
                f"{folder}: {type(self.model).__name__} makes its logits in a way that is not known"
            )

    def _hook(self, linears: tuple[str, ...]) -> None:
        modules = linears_of(self.model, linears)
        missing = set(self._experts) - set(modules)
        if missing:
            raise ArtifactCorrupt(f"the edge model has no linears {sorted(missing)}")
        for (layer, linear), module in modules.items():
            module.register_forward_hook(self._adder(layer, linears.index(linear), linear))

    def _adder(self, layer: int, column: int, linear: str) -> Callable[..., Any]:
        def add(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> Any:
            if self._gates_BLMR is None:
                return None
            a_DR, b_RF = self._experts[layer, linear]
            gates_BR = self._gates_BLMR[:, layer, column]
            return output + gatespace.delta(inputs[0], gates_BR, a_DR, b_RF)

        return add


def linears_of(model: PreTrainedModel, linears: Sequence[str]) -> dict[tuple[int, str], nn.Linear]:
    """Return the linears of these names per layer of a Llama-like causal LM."""
    found = {}
    for name, module in model.named_modules():
        match = _LINEAR.search(name)
        if match is not None and match[2] in linears and isinstance(module, nn.Linear):
            found[int(match[1]), match[2]] = module
    return found


def _pad_right(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Pad with any token: causal attention never lets a row see what follows its last token."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
