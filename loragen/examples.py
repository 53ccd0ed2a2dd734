"""Examples: the messages of few-shot examples in a prompt, which show what the task is asked.

A line that opens a turn (`User:`, `Q:`, `**Input:**`, `3. Customer:`) holds a message, with what
follows up to an empty line; it counts once the line that answers it (`Assistant:`, `A:`,
`Output:`) follows. Prompts are strangers' text: every line is read once, by patterns whose every
repetition is bounded.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

MAX_EXAMPLES: Final = 8
"""Messages that are taken from a prompt at most."""

_TURNS: Final = (
    (("user", "human", "customer", "client", "visitor"), ("assistant", "ai", "bot", "agent")),
    (("question", "query", "q"), ("answer", "a")),
    (("input", "message", "text", "email"), ("output", "response", "reply", "label", "result")),
)
"""Who asks, and who answers that."""
_ASKERS: Final = {asker: kind for kind, (askers, _) in enumerate(_TURNS) for asker in askers}
_ANSWERERS: Final = {name: kind for kind, (_, names) in enumerate(_TURNS) for name in names}
_NAMES: Final = "|".join(sorted((*_ASKERS, *_ANSWERERS), key=len, reverse=True))

_LABEL: Final = rf"(?:\*\*|__|\*|_|`)?(?:example |sample )?({_NAMES})(?: ?#?\d{{1,3}})?"
_COLON: Final = r"(?:\*\*|__|\*|_|`)? ?[:\uff1a](?:\*\*|__|\*|_|`)?"
_OPENS: Final = re.compile(
    rf"\s{{0,12}}(?:[-*>#•|]{{1,6}} {{0,4}})?(?:\(?\d{{1,3}}[.):] {{0,4}})?{_LABEL}{_COLON}",
    re.IGNORECASE,
)
"""The start of a line: indented, in a list, quoted, numbered, in bold or none of it."""
_ANSWERS_WITHIN: Final = re.compile(rf"(?: ?[/|;,])?\s{_LABEL}{_COLON}", re.IGNORECASE)
"""An answer that begins in the line of its question."""
_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "“": "”", "«": "»", "„": "“"}
_PLACEHOLDERS: Final = {"<": ">", "{": "}", "[": "]"}


@dataclass(slots=True)
class _Turn:
    """What one speaker says; of kind None: text that is nobody's."""

    kind: int | None
    asks: bool = False
    lines: list[str] = field(default_factory=list)
    is_whole: bool = False


def example_messages(prompt: str) -> list[str]:
    """Return the messages of a prompt's examples, in order, each once, at most `MAX_EXAMPLES`."""
    found: dict[str, None] = {}
    for asked, answer in pairwise(_turns(prompt)):
        if asked.asks and not answer.asks and asked.kind == answer.kind is not None:
            found.setdefault(_clean("\n".join(asked.lines)))
    found.pop("", None)
    return list(found)[:MAX_EXAMPLES]


def _turns(prompt: str) -> list[_Turn]:
    turns = [_Turn(None)]
    for line in prompt.splitlines():
        opened = _OPENS.match(line)
        turn = turns[-1]
        if opened is not None:
            turns += _opened(opened[1].lower(), line[opened.end() :])
        elif not line.strip():
            turn.is_whole = any(turn.lines)
        elif turn.is_whole and turn.kind is not None:
            turns.append(_Turn(None))
        else:
            turn.lines.append(line)
    return turns


def _opened(name: str, rest: str) -> Iterator[_Turn]:
    """Yield the turn that a label opens, and its answer where that is in the same line."""
    if name in _ANSWERERS:
        yield _Turn(_ANSWERERS[name], lines=[rest])
        return
    kind = _ASKERS[name]
    for answer in _ANSWERS_WITHIN.finditer(rest):
        if _ANSWERERS.get(answer[1].lower()) == kind:
            yield _Turn(kind, asks=True, lines=[rest[: answer.start()]])
            yield _Turn(kind, lines=[rest[answer.end() :]])
            return
    yield _Turn(kind, asks=True, lines=[rest.strip()])


def _clean(text: str) -> str:
    """Return a message without the quotes around it; nothing where it stands for another text."""
    text = text.strip()
    if len(text) > 1 and _PLACEHOLDERS.get(text[0]) == text[-1]:
        return ""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return "" if text in ("...", "…") else text
