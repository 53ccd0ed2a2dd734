"""A tiny edge model and pool with seeded random weights, for tests that need no checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from loragen.method.edge import linears_of
from loragen.method.pool import Experts, Pool, PoolSpec, edge_fingerprint
from loragen.own_template import FILE_NAME as OWN_FILE_NAME
from loragen.recipe import GateDtype, Gates, Level, Recipe
from loragen.template import FILE_NAME, CompiledTemplate

LAYERS, WIDTH, FFN_WIDTH = 3, 64, 160
LINEARS = ("gate", "up", "down")
EXPERTS, RANK = 4, 2

TEMPLATE = """\
{%- for message in messages -%}
<|{{ message['role'] }}|>{{ message['content'] }}<|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{%- endif -%}
"""
SPECIAL = ("<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")


@dataclass(frozen=True)
class TinyEdge:
    """An edge model folder and a generator folder that holds its pool."""

    model: Path
    generator: Path
    pool: Pool

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        seed: int = 0,
        config: PreTrainedConfig | None = None,
        linears: Sequence[str] = LINEARS,
    ) -> Self:
        """Write both folders; the same seed gives the same bytes.

        Args:
            config: a `tiny_config`; default: a Llama.
            linears: the pool's.
        """
        torch.manual_seed(seed)
        model, generator = folder / "edge", folder / "generator"
        config = config or tiny_config(LlamaConfig)
        edge = _write_model(model, config)
        generator.mkdir(parents=True)
        (generator / "config.json").write_text(json.dumps({"edge_model": "tiny"}))
        spec = PoolSpec(
            layers=config.num_hidden_layers,
            linears=tuple(linears),
            experts=EXPERTS,
            rank=RANK,
            edge_fingerprint=edge_fingerprint(model),
            template_hash=CompiledTemplate(TEMPLATE).hash,
        )
        path = generator / "pool.safetensors"
        Pool.save(path, spec, _random_experts(spec, edge))
        return cls(model, generator, Pool.load(path))

    def recipe(self, seed: int, *, level: Level = Level.DENSE, scale: float = 1.0) -> Recipe:
        """Return a random recipe of the pool; scale 0 gives zero gates."""
        random = np.random.default_rng(seed)
        gates: Gates
        if level is Level.PAPER:  # top-2 of softmax, one gate vector per layer
            gates = random.random((self.pool.spec.layers, 1, EXPERTS), dtype=np.float32)
            gates[gates < np.sort(gates, axis=2)[:, :, -2:-1]] = 0
            gates /= gates.sum(axis=2, keepdims=True)
        else:
            spec = self.pool.spec
            shape = (spec.layers, len(spec.linears), EXPERTS)
            gates = random.standard_normal(shape, dtype=np.float32)
        return Recipe.encode(
            gates * np.float32(scale),
            pool_id=self.pool.id,
            level=level,
            dtype=GateDtype.FLOAT16 if seed % 2 else GateDtype.INT8,
        )

    def tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return a conversation as the model reads it, its answer to follow."""
        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.model)
        text = tokenizer.apply_chat_template(
            messages, chat_template=TEMPLATE, add_generation_prompt=True, tokenize=False
        )
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids


def tiny_config(kind: type[PreTrainedConfig], **fields: Any) -> PreTrainedConfig:
    """Return the configuration of a tiny model of an architecture."""
    tokenizer = byte_tokenizer()
    return kind(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": FFN_WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,  # the least vLLM's CPU attention takes
            "max_position_embeddings": 512,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,  # spreads the logits, so that greedy answers are not ties
            **fields,
        }
    )


def _write_model(folder: Path, config: PreTrainedConfig) -> PreTrainedModel:
    byte_tokenizer().save_pretrained(folder)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    for name in (OWN_FILE_NAME, FILE_NAME):
        (folder / name).write_text(TEMPLATE)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per byte, and the template's marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=SPECIAL[0], pad_token=SPECIAL[1]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[2:])})
    return tokenizer


def _random_experts(spec: PoolSpec, model: PreTrainedModel) -> Experts:
    modules = linears_of(model, spec.linears)
    experts = {}
    for layer in range(spec.layers):
        for linear in spec.linears:
            module = modules[layer, linear]
            width_in, width_out = module.in_features, module.out_features
            a_DR = torch.randn(width_in, spec.columns) / width_in**0.5
            experts[layer, linear] = a_DR, torch.randn(spec.columns, width_out) * 0.3
    return experts
