"""Word vectors: a word as an edge model knows it, from its input and output embeddings."""

import re
from typing import Final

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

_WORD: Final = re.compile(r"\w+")


class WordVectors:
    """Vectors [2 D] of words, of mean square 1; of several words, their sum at that size.

    A mean would halve what a value of two words weighs beside others in a table.

    Attributes:
        size: 2 D.
    """

    def __init__(self, edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take an edge model of width D."""
        rows_WV = torch.cat([edge.model.embed_tokens.weight, edge.lm_head.weight], 1).detach()
        self._rows_WV = functional.rms_norm(rows_WV, rows_WV.shape[-1:])
        self.size = int(rows_WV.shape[1])
        self._tokenizer = tokenizer
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, text: str) -> torch.Tensor:
        """Return the vector of a text's words, marks between them left out."""
        if text not in self._known:
            self._known[text] = torch.stack([part for _, part in self.parts(text)]).sum(0)
        return self._known[text]

    def parts(self, text: str) -> list[tuple[int, torch.Tensor]]:
        """Return where each word of a text ends, and what it adds to the text's vector."""
        words = [(found.end(), found[0]) for found in _WORD.finditer(text)] or [(len(text), text)]
        vectors = torch.stack([self._word(word) for _, word in words])
        vectors = vectors / vectors.sum(0).square().mean().sqrt()
        return [(end, vector) for (end, _), vector in zip(words, vectors, strict=True)]

    def stack(self, texts: list[str]) -> torch.Tensor:
        """Return the vectors [N, 2 D] of several texts."""
        return torch.stack([self(text) for text in texts])

    def _word(self, word: str) -> torch.Tensor:
        ids = self._tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        return self._rows_WV[ids].mean(0)
