"""Greedy: answers of many rows at once, from keys and values that are kept.

`EdgeModel.generate_ended` says the same and reads whole rows again for every token: it is what this
is held to. Of rows without gates, what all begin with alike is read once: a system prompt, before
many messages to it. Models with layers that forget (sliding windows, linear attention) read whole
rows.
"""

from collections.abc import Sequence

import torch
from transformers import Cache, DynamicCache

from loragen.method.edge import EdgeModel


def shared_length(rows: Sequence[Sequence[int]]) -> int:
    """Return how many token ids all rows begin with alike; each keeps one of its own at least."""
    least = min(map(len, rows)) - 1
    for place in range(least):
        if len({row[place] for row in rows}) > 1:
            return place
    return max(least, 0)


@torch.inference_mode()
def read_prefix(edge: EdgeModel, ids: Sequence[int], rows: int) -> Cache:
    """Return the keys and values of ids that so many rows begin with, without gates."""
    cache = DynamicCache(config=edge.model.config)
    if ids:
        edge.go_on(torch.tensor([ids]), cache)
        cache.batch_repeat_interleave(rows)
    return cache


@torch.inference_mode()
def greedy(
    edge: EdgeModel,
    prompts: Sequence[Sequence[int]],
    gates_BLMR: torch.Tensor | None = None,
    *,
    max_tokens: int = 64,
) -> list[list[int]]:
    """Continue token ids greedily, with the end token where they get to one."""
    if not edge.keeps_all:
        return edge.generate_ended(prompts, gates_BLMR, max_tokens=max_tokens)
    shared = shared_length(prompts) if gates_BLMR is None else 0
    cache = read_prefix(edge, prompts[0][:shared], len(prompts))
    ids_BT, mask_BT = _pad_left([prompt[shared:] for prompt in prompts])
    mask_BT = torch.cat([mask_BT.new_ones(len(prompts), shared), mask_BT], 1)
    places_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)[:, shared:]
    answers: list[list[int]] = [[] for _ in prompts]
    end_ids = torch.tensor(edge.end_ids)
    open_rows = torch.arange(len(prompts))
    for _ in range(max_tokens):
        gates = None if gates_BLMR is None else gates_BLMR[open_rows]
        states_BTD = edge.go_on(ids_BT, cache, gates, mask_BT=mask_BT, places_BT=places_BT)
        chosen_B = edge.head(states_BTD[:, -1]).argmax(-1)
        for row, token in zip(open_rows.tolist(), chosen_B.tolist(), strict=True):
            answers[row].append(token)
        goes_on_B = ~torch.isin(chosen_B, end_ids)
        open_rows, chosen_B = open_rows[goes_on_B], chosen_B[goes_on_B]
        if not len(open_rows):
            break
        if not goes_on_B.all():
            cache.batch_select_indices(goes_on_B.nonzero()[:, 0])
        ids_BT = chosen_B[:, None]
        places_BT = places_BT[goes_on_B, -1:] + 1
        mask_BT = torch.cat([mask_BT[goes_on_B], mask_BT.new_ones(len(open_rows), 1)], 1)
    return answers


def _pad_left(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask [B, T] of rows that end together."""
    longest = max(map(len, rows))
    padding = [longest - len(row) for row in rows]
    ids = [[*[0] * pad, *row] for pad, row in zip(padding, rows, strict=True)]
    mask = [[*[0] * pad, *[1] * len(row)] for pad, row in zip(padding, rows, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)
