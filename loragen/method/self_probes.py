"""Self-generated probes: messages that an edge model itself expects under a system prompt.

A chat model that reads a conversation up to where the user speaks goes on with what users say
there (Magpie, arXiv 2406.08464). So a task can be measured and refined before anybody used it.
"""

from collections.abc import Sequence
from typing import Final

import torch
from transformers import PreTrainedTokenizerBase

from loragen.errors import InvalidRequest
from loragen.method.edge import EdgeModel
from loragen.method.greedy import read_prefix
from loragen.own_template import OwnTemplate

_ROUNDS: Final = 6
"""Times that twice as many messages are drawn as are wanted: many draws repeat another."""
_MARK: Final = "LORAGEN-PROBE"
"""Stands where a user's message is, to find what a template prints around it."""


def user_turn(
    template: OwnTemplate, system: Sequence[dict[str, str]], tools: Sequence[dict[str, object]]
) -> tuple[str, str]:
    """Return what a chat template prints before a user's first message, and what after it.

    Raises:
        InvalidRequest: it refuses the conversation.
    """
    text = template.try_render([*system, {"role": "user", "content": _MARK}], tools=tools)
    before, mark, after = (text or "").rpartition(_MARK)
    if not mark or not after:
        raise InvalidRequest("the edge model's chat template has no turn to make up probes for")
    return before, after


@torch.inference_mode()
def expected_messages(
    edge: EdgeModel,
    tokenizer: PreTrainedTokenizerBase,
    turn: tuple[str, str],
    *,
    count: int,
    max_tokens: int = 48,
    seed: int = 0,
) -> list[str]:
    """Return at most `count` distinct messages, drawn at temperature 1; those that end in time.

    `turn` is what stands before and after a message, as `user_turn` returns it. The same call on
    the same machine draws the same messages.
    """
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in turn)
    stop_id = after[0]
    drawn: dict[str, None] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(_ROUNDS):
            rows: torch.Tensor = edge.model.generate(  # type: ignore[operator]
                torch.tensor([before] * (2 * count)),
                past_key_values=read_prefix(edge, before[:-1], 2 * count),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=0.95,
                max_new_tokens=max_tokens,
                eos_token_id=stop_id,
                pad_token_id=stop_id,
            )
            for row in rows[:, len(before) :].tolist():
                if stop_id in row:
                    ids = row[: row.index(stop_id)]
                    drawn.setdefault(str(tokenizer.decode(ids, skip_special_tokens=True)).strip())
            drawn.pop("", None)
            if len(drawn) >= count:
                break
    return list(drawn)[:count]
