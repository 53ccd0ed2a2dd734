"""Drill: tables of random words, which teach a small model to look things up.

A row is one table of pairs and many questions about it, in a format of its own. The words of a
row are drawn afresh, so nothing but the table says which value belongs to a key. Text teaches a
model of this size that an answer is one of the table's values long before it teaches which; the
drill teaches the second in minutes, if it starts with few words and bare pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from loragen.training.batches import IGNORED, Batch, pad
from loragen.training.tokenizer import ASSISTANT, BOS, END, PAD, SPACE, SYSTEM, USER

FILLERS: Final = (
    *("is", "are", "to", "the", "for", "a", "an", "of", "in", "go", "goes", "use", "means", "get"),
    *("gives", "costs", "with", "as", "says", "at", "and", ":", ",", ";", ".", "=", "-"),
)
"""What stands between keys and values in real prompts."""

_EASIER_SHARE: Final = 0.3
"""Share of drawn batches whose style may be easier than the hardest."""

_WORD_SHARE: Final = 0.3
"""Share of random words among the fillers before a table and in a question."""


class Form(NamedTuple):
    """Ids of a word within a text and at its start."""

    inner: int
    first: int


@dataclass(frozen=True, slots=True)
class Style:
    """Ranges from which each row draws its own format; all lengths in words."""

    pairs: tuple[int, int]
    link: tuple[int, int] = (0, 0)
    """Between key and value."""
    gap: tuple[int, int] = (0, 0)
    """After a pair."""
    lead: tuple[int, int] = (0, 0)
    """Before a key."""
    head: tuple[int, int] = (0, 0)
    """Before the table."""
    ask: tuple[int, int] = (0, 0)
    """Before and after the key of a question."""
    two_word_share: float = 0.0
    """Share of rows whose values are two words."""
    reversed_share: float = 0.0
    """Share of rows that name the value first."""
    chat_share: float = 1.0
    """Share of rows that are chats and end their answers; the rest has neither turns nor ends."""


STYLES: Final = (
    Style(pairs=(4, 8), chat_share=0.0),
    Style(pairs=(3, 6), chat_share=0.5),
    Style(pairs=(3, 6), link=(0, 1), gap=(0, 1), ask=(0, 1), chat_share=0.7),
    Style(
        pairs=(2, 6), link=(0, 2), gap=(0, 1), lead=(0, 2), head=(0, 3), ask=(0, 2),
        two_word_share=0.1,
    ),
    Style(
        pairs=(2, 7), link=(0, 3), gap=(0, 2), lead=(0, 4), head=(0, 24), ask=(0, 4),
        two_word_share=0.2, reversed_share=0.2,
    ),
)  # fmt: skip
"""From bare pairs to tables as prompts write them."""


class Drill:
    """Draws batches of table rows for one tokenizer, in `styles` from easy to hard."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        words: Sequence[str],
        *,
        styles: Sequence[Style] = STYLES,
        rows: int = 32,
        questions: int = 16,
    ) -> None:
        vocab = tokenizer.get_vocab()
        self._pad, self._bos, self._end = vocab[PAD], vocab[BOS], vocab[END]
        self._system, self._user, self._assistant = vocab[SYSTEM], vocab[USER], vocab[ASSISTANT]
        self._fillers = _forms(vocab, FILLERS)
        self._words = _forms(vocab, sorted(set(words)))
        Random(0).shuffle(self._words)
        self._styles = styles
        self._rows, self._questions = rows, questions

    @property
    def words(self) -> int:
        """Words that tables can hold."""
        return len(self._words)

    def draw(self, hardest: int, words: int, rng: Random) -> tuple[Batch, int]:
        """Draw a batch of the style number `hardest`, or at times of an easier one; return both."""
        style = hardest
        if rng.random() < _EASIER_SHARE:
            style = rng.randint(0, hardest)
        return self.batch(self._styles[style], words, rng), style

    def batch(self, style: Style, words: int, rng: Random) -> Batch:
        """Draw a batch over the first `words` words; no segment is bare."""
        drawn = [self._row(style, self._words[:words], rng) for _ in range(self._rows)]
        segments = [segment for _, row in drawn for segment in row]
        shape = (self._rows, self._questions, -1)
        return Batch(
            prompts=pad([prompt for prompt, _ in drawn], self._pad),
            segments=pad([ids for ids, _ in segments], self._pad).view(shape),
            targets=pad([targets for _, targets in segments], IGNORED).view(shape),
            bare=torch.zeros(self._rows, self._questions, dtype=torch.bool),
        )

    def _row(
        self, style: Style, words: Sequence[Form], rng: Random
    ) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
        """Return the ids of a table's prompt, and ids and targets of its questions."""
        pairs = rng.randint(*style.pairs)
        width = 2 if rng.random() < style.two_word_share else 1
        drawn = rng.sample(words, pairs * (1 + width))
        keys = drawn[:pairs]
        values = [drawn[pairs + i * width : pairs + (i + 1) * width] for i in range(pairs)]
        text = self._noise(style.head, words, rng) + self._table(style, keys, values, rng)
        is_chat = rng.random() < style.chat_share
        before, after = (rng.randint(*style.ask) for _ in range(2))
        questions = []
        for _ in range(self._questions):
            chosen = rng.randrange(pairs)
            question = [
                *self._noise((before, before), words, rng),
                keys[chosen],
                *self._noise((after, after), words, rng),
            ]
            questions.append(self._question(question, values[chosen], is_chat=is_chat))
        if is_chat:
            return [self._bos, self._system, *_ids(text), self._end], questions
        return [self._bos, *(form.inner for form in text)], questions

    def _table(
        self, style: Style, keys: list[Form], values: list[list[Form]], rng: Random
    ) -> list[Form]:
        lead, link, gap = (
            rng.choices(self._fillers, k=rng.randint(*length))
            for length in (style.lead, style.link, style.gap)
        )
        is_reversed = bool(link) and rng.random() < style.reversed_share
        text: list[Form] = []
        for key, value in zip(keys, values, strict=True):
            first, second = (value, [key]) if is_reversed else ([key], value)
            text += [*lead, *first, *link, *second, *gap]
        return text

    def _question(
        self, question: list[Form], value: list[Form], *, is_chat: bool
    ) -> tuple[list[int], list[int]]:
        if is_chat:
            asked = [self._user, *_ids(question), self._end, self._assistant]
            answer = [*_ids(value), self._end]
        else:
            asked = [form.inner for form in question]
            answer = [form.inner for form in value]
        # The last id of a row predicts nothing.
        return asked + answer, [IGNORED] * (len(asked) - 1) + answer + [IGNORED]

    def _noise(self, length: tuple[int, int], words: Sequence[Form], rng: Random) -> list[Form]:
        return [
            rng.choice(words if rng.random() < _WORD_SHARE else self._fillers)
            for _ in range(rng.randint(*length))
        ]


def _forms(vocab: dict[str, int], words: Sequence[str]) -> list[Form]:
    """Return the forms of those words that are single tokens in both places."""
    return [
        Form(vocab.get(f"{SPACE}{word}", vocab[word]), vocab[word])
        for word in words
        if word in vocab and (f"{SPACE}{word}" in vocab or not word[:1].isalnum())
    ]


def _ids(text: Sequence[Form]) -> list[int]:
    return [form.inner if index else form.first for index, form in enumerate(text)]
