"""Passes: last hidden states of a batch, with the prompt in context or under gates, and scores.

With the prompt, one row holds it and several questions under a block mask: each question sees the
prompt and itself, so the prompt is computed once.
"""

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from loragen.method.edge import EdgeModel
from loragen.training.batches import IGNORED, Batch


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


def answer_loss(
    model: PreTrainedModel, states: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Return the mean over segments of the mean cross-entropy of their answer tokens.

    A one-word label weighs as much as a sentence: it is as hard to get right.
    """
    chosen = targets != IGNORED
    logits = model.get_output_embeddings()(states[chosen])
    losses = functional.cross_entropy(logits, targets[chosen], reduction="none")
    lengths = chosen.sum(-1, keepdim=True).expand_as(chosen)[chosen]
    return (losses / lengths).sum() / chosen.any(-1).sum()


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


def recipe_states(
    edge: EdgeModel, batch: Batch, gates_BLMR: torch.Tensor | None, bos_id: int
) -> torch.Tensor:
    """Return last hidden states [B, Q, S, D] of segments that read no prompt, under gates."""
    B, Q, S = batch.segments.shape
    bos = torch.full((B * Q, 1), bos_id)
    ids = torch.cat([bos, batch.segments.reshape(B * Q, S)], 1)
    gates = None if gates_BLMR is None else gates_BLMR.repeat_interleave(Q, 0)
    return edge.states(ids, gates)[:, 1:].reshape(B, Q, S, -1)
