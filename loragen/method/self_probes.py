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

from loragen.method.edge import EdgeModel
from loragen.method.greedy import read_prefix

_ROUNDS: Final = 6
"""Times that as many messages are drawn as are wanted, of varied ones twice as many: some do not
end, and many repeat another."""
_USUAL: Final = {"top_p": 1.0, "min_p": 0.2}
"""A usual message has no token that is less likely than this share of the likeliest."""
_VARIED: Final = {"top_p": 0.95, "min_p": 0.0}
"""A varied one may have any of the tokens that together are so likely."""
_TOWARDS_NATS: Final = 4.0
"""What a token of the prompt gains in every second draw, until one is drawn that gained ..."""
_MIGHT_BE: Final = (5e-4, 0.1)
"""... where its probability is between these."""
_WORD: Final = re.compile(r"\w+")


def _named_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str, vocabulary: int) -> torch.Tensor:
    """Return which tokens of a vocabulary [V] a prompt names."""
    is_named_V = torch.zeros(vocabulary, dtype=torch.bool)
    # A word is not the same token at the start of a message as within a prompt.
    for text in (prompt, *set(_WORD.findall(prompt))):
        is_named_V[_within(tokenizer(text, add_special_tokens=False)["input_ids"], vocabulary)] = (
            True
        )
    is_named_V[_within(tokenizer.all_special_ids, vocabulary)] = False
    return is_named_V


def _within(ids: Sequence[int], vocabulary: int) -> list[int]:
    """Return those of a tokenizer's ids that its model has: Gemma 3's knows a token for images."""
    return [each for each in ids if each < vocabulary]


class _TowardsPrompt(LogitsProcessor):
    """Makes every second row likelier to say once what the prompt names, where that might be said.

    Tokens that are likely as it is are the form of a message, and very unlikely ones do not fit in.
    A message that went on leaning would be of nothing but such words, so it stops at the first that
    was drawn. It comes before what leaves unlikely tokens out, which then leaves out others.
    """

    def __init__(self, is_named_V: torch.Tensor) -> None:
        self._is_named_V = is_named_V
        self._gained_BV: torch.Tensor | None = None
        self._leans_B1 = torch.ones(0, 1, dtype=torch.bool)

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores [B, V] of the next token after ids [B, T]."""
        scores = scores.clone()
        share = scores[1::2].softmax(-1)
        might_be = (share > _MIGHT_BE[0]) & (share < _MIGHT_BE[1])
        gains_BV = self._is_named_V & might_be
        if self._gained_BV is None:
            self._leans_B1 = torch.ones(len(gains_BV), 1, dtype=torch.bool)
        else:
            self._leans_B1 &= ~self._gained_BV.gather(1, ids[1::2, -1:])
        self._gained_BV = gains_BV & self._leans_B1
        scores[1::2] += _TOWARDS_NATS * self._gained_BV
        return scores


@torch.inference_mode()
def expected_messages(
    edge: EdgeModel,
    tokenizer: PreTrainedTokenizerBase,
    turn: tuple[str, str],
    *,
    count: int,
    varied: bool = False,
    max_tokens: int = 48,
    seed: int = 0,
) -> list[str]:
    """Return `count` messages that the edge model expects, drawn at temperature 1.

    They are to measure on: usual ones, and what is drawn again comes again, for users say it often.
    `varied` ones are to fit on, all different and odd ones among them: a recipe that is fitted on
    what is usual unlearns the rest. Fewer than `count` come where too few are different, or end.

    Every second message leans towards the words of the prompt: a small model knows the kind of
    message that a prompt gets, and seldom asks for just those rows that its table has.

    `turn` is what stands before and after a message, as `user_turn` returns it. The same call on
    the same machine draws the same messages.
    """
    wanted = 2 * count if varied else count
    draws = _Draws(edge, tokenizer, turn, at_once=wanted, max_tokens=max_tokens, varied=varied)
    drawn: list[str] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(_ROUNDS * wanted // draws.at_once):
            drawn += draws.next()
            if varied:
                drawn = list(dict.fromkeys(drawn))
            if len(drawn) >= count:
                break
    return drawn[:count]


class _Draws:
    """Draws of messages under one prompt, so many at once as there is memory for."""

    def __init__(
        self,
        edge: EdgeModel,
        tokenizer: PreTrainedTokenizerBase,
        turn: tuple[str, str],
        *,
        at_once: int,
        max_tokens: int,
        varied: bool,
    ) -> None:
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in turn)
        room = edge.cache_tokens // (len(before) + max_tokens)
        self.at_once = max(2, min(at_once, room) // 2 * 2)
        self._edge = edge
        self._tokenizer = tokenizer
        self._stop_id = after[0]
        self._ids_BT = torch.tensor([before] * self.at_once)
        self._prefix = read_prefix(edge, before[:-1], self.at_once) if edge.keeps_all else None
        self._is_named_V = _named_tokens(tokenizer, turn[0], edge.model.config.vocab_size)
        self._max_tokens = max_tokens
        self._likely = _VARIED if varied else _USUAL

    def next(self) -> list[str]:
        """Return those of the next draws that end in time and say something."""
        rows: torch.Tensor = self._edge.model.generate(  # type: ignore[operator]
            self._ids_BT,
            attention_mask=torch.ones_like(self._ids_BT),
            past_key_values=copy.deepcopy(self._prefix),
            logits_processor=LogitsProcessorList([_TowardsPrompt(self._is_named_V)]),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            **self._likely,
            max_new_tokens=self._max_tokens,
            eos_token_id=self._stop_id,
            pad_token_id=self._stop_id,
        )
        said = rows[:, self._ids_BT.shape[1] :].tolist()
        ended = [row[: row.index(self._stop_id)] for row in said if self._stop_id in row]
        texts = self._tokenizer.batch_decode(ended, skip_special_tokens=True)
        return [text.strip() for text in texts if text.strip()]
