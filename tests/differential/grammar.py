"""Grammars so small that what may come next can be said without a grammar engine.

Texts are of ASCII characters, each of which is one token of the tiny model.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol, Self

END: Final = ""
"""Stands for the end token where characters are expected."""


class Grammar(Protocol):
    """What an answer may be."""

    def fields(self) -> dict[str, Any]:
        """Return the fields of a request that ask for it."""

    def allowed(self, text: str) -> set[str]:
        """Return what may follow `text`: characters, or END. Nothing if `text` is wrong."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several texts, asked for as a choice or as the values of a JSON schema."""

    texts: tuple[str, ...]
    schema: str | None = None

    @classmethod
    def of_schema(cls, *values: Sequence[Any]) -> Self:
        """Return the objects with the fields a, b, ... of these values, in compact JSON."""
        names = "abcdefgh"[: len(values)]
        schema = {
            "type": "object",
            "properties": {n: {"enum": list(v)} for n, v in zip(names, values, strict=True)},
            "required": list(names),
            "additionalProperties": False,
        }
        texts = ["{"]
        for position, (name, of_name) in enumerate(zip(names, values, strict=True)):
            end = "}" if position == len(values) - 1 else ","
            texts = [f'{t}"{name}":{json.dumps(value)}{end}' for t in texts for value in of_name]
        return cls(tuple(texts), json.dumps(schema))

    def fields(self) -> dict[str, Any]:
        """Return the fields of a request that ask for it."""
        if self.schema is None:
            return {"structured_outputs": {"choice": list(self.texts)}}
        described = {"name": "object", "schema": json.loads(self.schema)}
        return {"response_format": {"type": "json_schema", "json_schema": described}}

    def allowed(self, text: str) -> set[str]:
        """Return what may follow `text`."""
        return {whole[len(text) : len(text) + 1] for whole in self.texts if whole.startswith(text)}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression of one class of characters after the other."""

    classes: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """Return the fields of a request that ask for it."""
        return {"structured_outputs": {"regex": "".join(f"[{each}]" for each in self.classes)}}

    def allowed(self, text: str) -> set[str]:
        """Return what may follow `text`."""
        known = zip(text, self.classes, strict=False)
        if len(text) > len(self.classes) or not all(char in each for char, each in known):
            return set()
        return {END} if len(text) == len(self.classes) else set(self.classes[len(text)])


def draw_grammar(random: Random) -> Grammar:
    """Return a grammar of one of the three kinds."""
    kind = random.choice(("choice", "schema", "pattern"))
    if kind == "choice":
        words = random.sample(("red", "redder", "blue", "green", "grey", "greyhound"), 3)
        return Choice(tuple(words))
    if kind == "schema":
        return Choice.of_schema((True, False), random.sample(("x", "xy", "z", 1, 12), 3))
    lengths = random.randint(2, 10)
    return Pattern(tuple(random.choice(("abc", "0123456789", "xyz", "-")) for _ in range(lengths)))
