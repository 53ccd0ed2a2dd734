"""Edge model: a stock Llama trained from scratch to follow the prompts of the suite.

One row holds a prompt and several questions under a block mask: each question sees the prompt and
itself, so the prompt is computed once. Some questions see no prompt and learn the default answer.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from loragen.training.batches import IGNORED, Batch, Renderer, StreamSpec, training_batches
from loragen.training.optimizer import Optimizer, Schedule
from loragen.training.progress import Progress
from loragen.training.tokenizer import SPACE

logger = logging.getLogger(__name__)

EDGE_CONTEXT: Final = 2048


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """Size and schedule of the edge model."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 384
    steps: int = 1800
    matrix_lr: float = 0.02
    other_lr: float = 3e-3


def pretrain(tokenizer: PreTrainedTokenizerBase, spec: EdgeSpec, seed: int) -> LlamaForCausalLM:
    """Train an edge model; a function of `spec` and `seed` alone."""
    torch.manual_seed(seed)
    model = new_model(tokenizer, spec)
    renderer = Renderer(tokenizer)
    batches = training_batches(renderer, StreamSpec(), f"edge/{seed}")
    matrices, others = split_parameters(model)
    optimizer = Optimizer(matrices, [(others, spec.other_lr)], spec.matrix_lr)
    schedule = Schedule(spec.steps)
    progress = Progress(logger, "edge", spec.steps)
    model.train()
    for step, batch in zip(range(spec.steps), batches, strict=False):
        loss = prompted_loss(model, batch, renderer.pad_id)
        optimizer.step(loss, schedule.factor(step))
        progress.add(step, loss.item())
    model.eval()
    return model


def new_model(tokenizer: PreTrainedTokenizerBase, spec: EdgeSpec) -> LlamaForCausalLM:
    """Return an untrained Llama of this size for this tokenizer."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
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
    words: dict[str, list[int]] = defaultdict(list)
    for token, index in tokenizer.get_vocab().items():
        words[token.removeprefix(SPACE) or token].append(index)
    embedding = model.model.embed_tokens.weight
    nn.init.normal_(embedding, std=0.5)
    for indices in words.values():
        embedding[indices] = embedding[indices[0]].clone()
    spaced = [index for token, index in tokenizer.get_vocab().items() if token.startswith(SPACE)]
    embedding[spaced] += 0.25 * torch.randn(embedding.shape[1])
    model.lm_head.weight.copy_(embedding * embedding.shape[1] ** -0.5)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices of the blocks, and all other parameters."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "layers." in name
        (matrices if is_matrix else others).append(parameter)
    return matrices, others


def prompted_states(model: PreTrainedModel, batch: Batch, pad_id: int) -> torch.Tensor:
    """Return last hidden states [B, Q, S, D] of segments that read their prompt."""
    B, P = batch.prompts.shape
    _, Q, S = batch.segments.shape
    used_BP = batch.prompts != pad_id
    ids_BT = torch.cat([batch.prompts, batch.segments.reshape(B, Q * S)], 1)
    start_BQ = torch.where(batch.bare, 1, used_BP.sum(1, keepdim=True))
    segment_positions = (start_BQ[:, :, None] + torch.arange(S)).reshape(B, Q * S)
    positions_BT = torch.cat([torch.arange(P).expand(B, P), segment_positions], 1)
    output = model.get_decoder()(
        input_ids=ids_BT,
        position_ids=positions_BT,
        attention_mask=_block_mask(used_BP, batch.bare, S),
        use_cache=False,
    )
    states: torch.Tensor = output.last_hidden_state[:, P:].reshape(B, Q, S, -1)
    return states


def _block_mask(used_BP: torch.Tensor, bare_BQ: torch.Tensor, S: int) -> torch.Tensor:
    """Return the mask [B, 1, P + Q*S, P + Q*S]: prompt, then segments that see only themselves.

    A bare segment sees nothing of the prompt but <s>.
    """
    B, P = used_BP.shape
    Q = bare_BQ.shape[1]
    T = P + Q * S
    mask = torch.zeros(B, T, T, dtype=torch.bool)
    mask[:, :P, :P] = torch.ones(P, P, dtype=torch.bool).tril()
    is_bos = torch.arange(P) == 0
    visible_BQP = used_BP[:, None] & (~bare_BQ[:, :, None] | is_bos)
    mask[:, P:, :P] = visible_BQP.repeat_interleave(S, 1)
    causal = torch.ones(S, S, dtype=torch.bool).tril()
    mask[:, P:, P:] = torch.block_diag(*[causal] * Q).bool()
    return mask[:, None]


def prompted_loss(model: PreTrainedModel, batch: Batch, pad_id: int) -> torch.Tensor:
    """Return the mean cross-entropy of answer tokens, read with the prompt."""
    states = prompted_states(model, batch, pad_id)
    return answer_loss(model, states, batch.targets)


def answer_loss(
    model: PreTrainedModel, states: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return the mean cross-entropy at the positions that have a target."""
    chosen = targets != IGNORED
    logits = model.get_output_embeddings()(states[chosen])
    return functional.cross_entropy(logits, targets[chosen])


def exact_matches(
    model: PreTrainedModel, states: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return, per segment, whether the argmax is right at every answer token and the end.

    By induction over tokens this equals exact match of greedy generation.
    """
    chosen = targets != IGNORED
    right = torch.ones_like(chosen)
    logits = model.get_output_embeddings()(states[chosen])
    right[chosen] = logits.argmax(-1) == targets[chosen]
    return right.all(-1)
