"""A seeded random edge model with its pool, as large as a benchmark needs.

Speed does not depend on what the weights say, so random ones measure as well as trained ones; the
tokenizer and chat template are those of the small checkpoint.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from loragen.method.pool import Pool, PoolSpec, edge_fingerprint
from loragen.recipe import Level, Recipe
from loragen.template import FILE_NAME, CompiledTemplate

LINEARS = ("gate", "up", "down")


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Shape of a Llama edge model and of its pool."""

    hidden: int = 1024
    intermediate: int = 2816
    layers: int = 10
    heads: int = 16
    key_value_heads: int = 8
    experts: int = 64

    @property
    def kv_bytes_per_token(self) -> int:
        """Memory of one token's keys and values in all layers, in bfloat16."""
        return 2 * 2 * self.layers * self.key_value_heads * (self.hidden // self.heads)


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A model folder, its generator folder (pool only), and recipes for it."""

    edge: Path
    generator: Path
    pool_id: str
    size: ModelSize

    @classmethod
    def create(cls, folder: Path, tokenizer_folder: Path, size: ModelSize) -> Self:
        """Write a model and a pool below `folder`."""
        torch.manual_seed(0)
        edge, generator = folder / "edge", folder / "generator"
        generator.mkdir(parents=True)
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=size.intermediate,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.key_value_heads,
            max_position_embeddings=4_096,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        config.dtype = torch.bfloat16
        AutoModelForCausalLM.from_config(config).save_pretrained(edge)
        for source in tokenizer_folder.glob("*"):
            if source.name.startswith("tokenizer") or source.suffix == ".jinja":
                shutil.copy(source, edge)
        template = CompiledTemplate.load(edge / FILE_NAME)
        spec = PoolSpec(
            layers=size.layers,
            linears=LINEARS,
            experts=size.experts,
            rank=1,
            edge_fingerprint=edge_fingerprint(edge),
            template_hash=template.hash,
        )
        pool_id = Pool.save(generator / "pool.safetensors", spec, _experts(size))
        return cls(edge, generator, pool_id, size)

    def recipe(self, seed: int) -> str:
        """Return the base64url text of a random recipe."""
        shape = (self.size.layers, len(LINEARS), self.size.experts)
        gates = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        return Recipe.encode(gates, pool_id=self.pool_id, level=Level.DENSE).text


def _experts(size: ModelSize) -> dict[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]:
    widths = {
        "gate": (size.hidden, size.intermediate),
        "up": (size.hidden, size.intermediate),
        "down": (size.intermediate, size.hidden),
    }
    return {
        (layer, linear): (
            torch.randn(inner, size.experts) * inner**-0.5,
            torch.randn(size.experts, outer) * 0.01,
        )
        for layer in range(size.layers)
        for linear, (inner, outer) in widths.items()
    }
