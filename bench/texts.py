"""Texts of a length: prompts and messages for models whose weights say nothing."""

import random
from pathlib import Path
from typing import Final

from transformers import AutoTokenizer, PreTrainedTokenizerBase

_WORDS: Final = (
    "orders", "returns", "prices", "delivery", "lamps", "chairs", "phones", "radios", "coffee",
    "tea", "bread", "cheese", "guitars", "tents", "answer", "friendly", "customer", "shop",
)  # fmt: skip


class TextMaker:
    """Makes texts of a given length in tokens."""

    def __init__(self, tokenizer_folder: Path) -> None:
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tokenizer_folder)

    def __call__(self, seed: int, *, tokens: int) -> str:
        """Return a text of about the length, different from the first word on."""
        words = random.Random(seed).choices(_WORDS, k=2 * tokens)
        ids = self._tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
        return str(self._tokenizer.decode(ids[:tokens]))
