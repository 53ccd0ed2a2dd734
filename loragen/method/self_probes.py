"""Self-generated probes: messages that an edge model itself expects under a system prompt.

A chat model that reads a conversation up to where the user speaks goes on with what users say
there (Magpie, arXiv 2406.08464). So a task can be measured and refined before anybody used it.
"""

import copy
import re
from collections.abc import Sequence
from typing import Final

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from loragen.errors import InvalidRequest
from loragen.method.edge import EdgeModel
from loragen.method.greedy import read_prefix
from loragen.own_template import OwnTemplate

_ROUNDS: Final = 6
"""Times that twice as many messages are drawn as are wanted: many draws repeat another."""
_TOWARDS_NATS: Final = 4.0
"""What a token of the prompt gains in every second draw ..."""
_MIGHT_BE: Final = (5e-4, 0.1)
"""... where its probability is between these."""
_WORD: Final = re.compile(r"\w+")
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


class _TowardsPrompt(LogitsProcessor):
    """Makes every second row likelier to say what the prompt names, where that might be said.

    Tokens that are likely as it is are the form of a message, and very unlikely ones do not fit in.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: str, vocabulary: int) -> None:
        self._is_named_V = torch.zeros(vocabulary, dtype=torch.bool)
        # A word is not the same token at the start of a message as within a prompt.
        for text in (prompt, *set(_WORD.findall(prompt))):
            self._is_named_V[tokenizer(text, add_special_tokens=False)["input_ids"]] = True
        self._is_named_V[tokenizer.all_special_ids] = False

    def __call__(self, _: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores [B, V] of the next token."""
        scores = scores.clone()
        share = scores[1::2].softmax(-1)
        might_be = (share > _MIGHT_BE[0]) & (share < _MIGHT_BE[1])
        scores[1::2] += _TOWARDS_NATS * (self._is_named_V & might_be)
        return scores


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

    Every second one leans towards the words of the prompt: a small model knows the kind of message
    that a prompt gets, and seldom asks for just those rows that its table has.

    `turn` is what stands before and after a message, as `user_turn` returns it. The same call on
    the same machine draws the same messages.
    """
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in turn)
    stop_id = after[0]
    at_once = max(2, min(2 * count, edge.cache_tokens // (len(before) + max_tokens) // 2 * 2))
    ids_BT = torch.tensor([before] * at_once)
    prefix = read_prefix(edge, before[:-1], at_once) if edge.keeps_all else None
    towards = _TowardsPrompt(tokenizer, turn[0], edge.model.config.vocab_size)
    drawn: dict[str, None] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(_ROUNDS * 2 * count // at_once):
            rows: torch.Tensor = edge.model.generate(  # type: ignore[operator]
                ids_BT,
                attention_mask=torch.ones_like(ids_BT),
                past_key_values=copy.deepcopy(prefix),
                logits_processor=LogitsProcessorList([towards]),
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
