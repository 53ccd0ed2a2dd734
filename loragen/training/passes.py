"""Passes: last hidden states of a batch, with the prompt in context or under gates, and scores.

With the prompt, one row holds it and several questions under a block mask: each question sees the
prompt and itself, so the prompt is computed once.
"""

from typing import Final

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from loragen.method.edge import EdgeModel
from loragen.training.batches import IGNORED, Batch

MESSAGE_WEIGHT: Final = 0.1
"""Weight in pretraining of what users say, beside what the model answers."""


def fast_precision() -> torch.autocast:
    """Return a context that computes in bfloat16, on a CPU that has it.

    Where it is emulated a step takes ten times as long as in float32.
    """
    has_bfloat16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16)


def prompted_states(model: PreTrainedModel, batch: Batch, pad_id: int) -> torch.Tensor:
    """Return last hidden states [B, Q, S, D] of segments that read their prompt; zero on padding.

    Padding is moved to the end of each row and cut there: rows are as long as their tokens.
    """
    B, P = batch.prompts.shape
    _, Q, S = batch.segments.shape
    ids_BT = torch.cat([batch.prompts, batch.segments.reshape(B, Q * S)], 1)
    owner_T = torch.cat([torch.zeros(P), torch.arange(1, Q + 1).repeat_interleave(S)]).long()
    start_BQ = torch.where(batch.bare, 1, (batch.prompts != pad_id).sum(1, keepdim=True))
    segment_positions = (start_BQ[:, :, None] + torch.arange(S)).reshape(B, Q * S)
    positions_BT = torch.cat([torch.arange(P).expand(B, P), segment_positions], 1)

    used_BT = ids_BT != pad_id
    order_BN = used_BT.long().argsort(dim=1, descending=True, stable=True)
    order_BN = order_BN[:, : int(used_BT.sum(1).max())]
    output = model.get_decoder()(
        input_ids=ids_BT.gather(1, order_BN),
        position_ids=positions_BT.gather(1, order_BN),
        attention_mask=_block_mask(owner_T[order_BN], used_BT.gather(1, order_BN), batch.bare),
        use_cache=False,
    )
    states_BND: torch.Tensor = output.last_hidden_state
    D = states_BND.shape[-1]
    states_BTD = states_BND.new_zeros(B, P + Q * S, D)
    states_BTD = states_BTD.scatter(1, order_BN[..., None].expand(-1, -1, D), states_BND)
    return states_BTD[:, P:].reshape(B, Q, S, D)


def _block_mask(
    owner_BN: torch.Tensor, used_BN: torch.Tensor, bare_BQ: torch.Tensor
) -> torch.Tensor:
    """Return the mask [B, 1, N, N] of tokens owned by the prompt (0) or by a segment (1 .. Q).

    A token sees what came before it in the prompt and in its own segment; one of a bare segment
    sees nothing of the prompt but <s>.
    """
    B, N = owner_BN.shape
    is_own = owner_BN[:, :, None] == owner_BN[:, None]
    bare_BO = torch.cat([torch.zeros(B, 1, dtype=torch.bool), bare_BQ], 1)
    reads_BN = ~bare_BO.gather(1, owner_BN)
    is_bos = torch.arange(N) == 0
    is_prompt = (owner_BN == 0)[:, None] & (reads_BN[:, :, None] | is_bos)
    causal = torch.ones(N, N, dtype=torch.bool).tril()
    mask = (is_own | is_prompt) & used_BN[:, None] & causal
    # A row of nothing would make attention divide by zero; padding reads itself.
    return (mask | torch.eye(N, dtype=torch.bool))[:, None]


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


def message_loss(
    model: PreTrainedModel, states: torch.Tensor, batch: Batch, pad_id: int
) -> torch.Tensor:
    """Return the mean cross-entropy of what users say in the first segment of each row.

    A model that has learnt what is asked under a prompt can make up probes for it.
    """
    following_BS = batch.segments[:, 0].roll(-1, 1)
    following_BS[:, -1] = pad_id
    chosen_BS = (batch.targets[:, 0] == IGNORED) & (following_BS != pad_id)
    logits = model.get_output_embeddings()(states[:, 0][chosen_BS])
    return functional.cross_entropy(logits, following_BS[chosen_BS])


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
