"""Two running workers of one random edge model, one with its pool and one bare, to be asked."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.model import BenchModel, ModelSize
from bench.progress import say
from bench.texts import TextMaker
from bench.worker import workers

MODEL: Final = ModelSize(experts=128)
PROMPT_TOKENS: Final = 1_000
KV_PROMPTS: Final = 20
"""Whole requests with such prompts that the KV cache of a worker holds."""
BATCHED_TOKENS: Final = 512
"""Tokens in one engine step: longer prompts are read in chunks of that."""
MESSAGE_TOKENS: Final = 256
"""The longest message."""
ANSWER_TOKENS: Final = 64
"""The longest answer."""
KV_TOKENS: Final = KV_PROMPTS * (PROMPT_TOKENS + MESSAGE_TOKENS + ANSWER_TOKENS)
"""Tokens that the KV cache of a worker holds."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Where the workers are, and what to ask them."""

    model: BenchModel
    gate_url: str
    bare_url: str
    texts: TextMaker

    def client(self) -> httpx.AsyncClient:
        """Return a client with a connection for every request under way."""
        # vLLM closes idle connections after 5 s; one that closes as it is used again breaks.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
        return httpx.AsyncClient(timeout=600, limits=limits)


@contextlib.contextmanager
def stand(checkpoint: Path, *, batched_tokens: int = BATCHED_TOKENS) -> Iterator[Stand]:
    """Run both workers until the block ends."""
    engine = {
        "max_model_len": 2_560,
        "kv_cache_gib": KV_TOKENS * MODEL.kv_bytes_per_token / 2**30,
        "max_num_batched_tokens": batched_tokens,
    }
    with tempfile.TemporaryDirectory(prefix="loragen-bench-") as name:
        folder = Path(name)
        say(f"writing a random edge model to {folder}")
        model = BenchModel.create(folder, checkpoint / "edge", MODEL)
        texts = TextMaker(checkpoint / "edge")
        with workers(model, folder, say, engine) as (gate_url, bare_url):
            yield Stand(model, gate_url, bare_url, texts)
