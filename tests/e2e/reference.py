"""The in-process reference: the same recipes through the Hugging Face edge model, no server."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from loragen.method.edge import EdgeModel
from loragen.method.generator import Generator
from loragen.recipe import Recipe
from loragen.template import CompiledTemplate


class Reference:
    """Answers chat questions as the server must."""

    def __init__(
        self, edge: EdgeModel, generator: Generator, template: CompiledTemplate, folder: Path
    ) -> None:
        self.generator = generator
        self._edge = edge
        self._template = template
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def tokens(self, question: str) -> list[int]:
        """Return the ids of the compiled template around one question."""
        text = self._template.render([{"role": "user", "content": question}])
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def answer(
        self, questions: Sequence[str], recipes: Sequence[Recipe | None], *, max_tokens: int
    ) -> list[list[int]]:
        """Return the token ids answered to each question under its recipe, less the end token."""
        pool = self.generator.pool
        shape = (pool.layers, len(pool.linears), pool.columns)
        rows = [
            np.zeros(shape, np.float32)
            if recipe is None
            else recipe.expand(linears=len(pool.linears), rank=pool.rank)
            for recipe in recipes
        ]
        gates_BLMR = torch.from_numpy(np.stack(rows))
        prompts = [self.tokens(question) for question in questions]
        return self._edge.generate(prompts, gates_BLMR, max_tokens=max_tokens)
