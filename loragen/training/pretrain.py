"""Edge model: a stock Llama trained from scratch to follow the prompts of the suite.

Some questions see no prompt and learn the default answer, so that the edge model alone says
something sensible.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.suite.small import SMALL
from loragen.training.batches import Renderer, StreamSpec, training_batches
from loragen.training.optimizer import Optimizer, Schedule, split_parameters
from loragen.training.passes import (
    MESSAGE_WEIGHT,
    answer_loss,
    message_loss,
    prompted_states,
)
from loragen.training.progress import Progress
from loragen.training.tokenizer import SPACE

logger = logging.getLogger(__name__)

EDGE_CONTEXT: Final = 2048


@dataclass(frozen=True, slots=True)
class EdgeSize:
    """Shape of an edge model."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 384


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """Size and schedule of the small edge model."""

    size: EdgeSize = field(default_factory=EdgeSize)
    steps: int = 800
    matrix_lr: float = 0.02
    other_lr: float = 3e-3


def pretrain(tokenizer: PreTrainedTokenizerBase, spec: EdgeSpec, seed: int) -> LlamaForCausalLM:
    """Train an edge model; a function of `spec` and `seed` alone."""
    torch.manual_seed(seed)
    model = new_model(tokenizer, spec.size)
    renderer = Renderer(tokenizer)
    batches = training_batches(renderer, StreamSpec(SMALL), f"edge/{seed}")
    matrices, others = split_parameters(model)
    optimizer = Optimizer(matrices, [(others, spec.other_lr)], spec.matrix_lr)
    schedule = Schedule(spec.steps)
    progress = Progress(logger, "edge", spec.steps)
    model.train()
    for step, batch in zip(range(spec.steps), batches, strict=False):
        states = prompted_states(model, batch, renderer.pad_id)
        loss = answer_loss(model, states, batch.targets)
        learned = loss + MESSAGE_WEIGHT * message_loss(model, states, batch, renderer.pad_id)
        optimizer.step(learned, schedule.factor(step))
        progress.add(step, loss.item())
    model.eval()
    return model


def new_model(tokenizer: PreTrainedTokenizerBase, size: EdgeSize) -> LlamaForCausalLM:
    """Return an untrained Llama of this size for this tokenizer."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=EDGE_CONTEXT,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    _initialise(model, tokenizer)
    return model


@torch.no_grad()
def _initialise(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set wide weights; a word starts out alike with and without its space, and read or written.

    Prompts hold " amber" and answers start with "amber": from a shared start, copying one as the
    other needs no per-word learning.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            scale = 0.3 if "o_proj" in name or "down_proj" in name else 1.0
            nn.init.normal_(parameter, std=scale * parameter.shape[1] ** -0.5)
    # The vocabulary comes in another order in every process.
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words: dict[str, list[int]] = defaultdict(list)
    for token, index in vocab:
        words[token.removeprefix(SPACE) or token].append(index)
    embedding = model.model.embed_tokens.weight
    nn.init.normal_(embedding, std=0.5)
    for indices in words.values():
        embedding[indices] = embedding[indices[0]].clone()
    spaced = [index for token, index in vocab if token.startswith(SPACE)]
    embedding[spaced] += 0.25 * torch.randn(embedding.shape[1])
    model.lm_head.weight.copy_(embedding * embedding.shape[1] ** -0.5)
