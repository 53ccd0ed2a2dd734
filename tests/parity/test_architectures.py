"""Models of the real architectures: the worker's engine answers as Hugging Face's code does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    ApertusConfig,
    ArceeConfig,
    Gemma2Config,
    Gemma3TextConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.activations import XIELUActivation

from tests.fakes.engine import running_engine
from tests.fakes.tiny import LINEARS, TinyEdge, tiny_config
from tests.parity.oracle import assert_same, base_model, merged

pytestmark = pytest.mark.vllm

LAYERS = 2
GEMMA = {"query_pre_attn_scalar": 32, "sliding_window": 32}
WITHOUT_GATE = ("up", "down")
"""Up is a layer of its own there."""
APERTUS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}


@pytest.mark.parametrize(
    ("kind", "fields", "linears"),
    [
        (Qwen2Config, {}, LINEARS),
        (Qwen3Config, {}, LINEARS),
        (MistralConfig, {}, LINEARS),
        (Gemma2Config, GEMMA, LINEARS),
        (Gemma3TextConfig, GEMMA, LINEARS),
        (ApertusConfig, APERTUS, WITHOUT_GATE),
        (ArceeConfig, {}, WITHOUT_GATE),  # vLLM has no code for it and runs Hugging Face's
    ],
)
def test_a_mixed_batch_equals_merged_weights(
    tmp_path: Path, kind: type[PreTrainedConfig], fields: dict[str, Any], linears: tuple[str, ...]
) -> None:
    config = tiny_config(kind, num_hidden_layers=LAYERS, **fields)
    tiny = TinyEdge.make(tmp_path, config=config, linears=linears)
    recipes = [None, tiny.recipe(1), tiny.recipe(2)]
    random = np.random.default_rng(0)
    prompts = [random.integers(0, 250, size=40 + 5 * i).tolist() for i in range(len(recipes))]
    base = base_model(tiny)
    with running_engine(tiny, "float32", skip_tokenizer_init=True) as engine:
        answers = engine.generate(prompts, recipes)
    # vLLM makes Hugging Face's classes that it runs ask for this.
    base.get_decoder().do_not_compile = True
    for module in base.modules():
        if isinstance(module, XIELUActivation):
            module.to(torch.bfloat16)  # as vLLM keeps it, whatever the model's dtype
    for prompt, recipe, answer in zip(prompts, recipes, answers, strict=True):
        assert_same(answer, prompt, merged(base, tiny, recipe))
