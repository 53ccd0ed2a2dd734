"""Examples: prompts to try on a stack that has just started."""

import json
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from loragen.errors import ConfigError

_LINES: Final = 5
_PROGRAM = """\
import httpx, openai
url, system_prompt, question = {url!r}, {prompt!r}, {question!r}
task = httpx.post(url + "/tasks", json={{"model": {model!r}, "system_prompt": system_prompt}}, timeout=60).json()
reply = openai.OpenAI(base_url=url, api_key="none").chat.completions.create(
    model={model!r}, messages=[{{"role": "user", "content": question}}],
    temperature=0, extra_body={{"task_id": task["id"]}})
print(reply.choices[0].message.content)
print(reply.usage.loragen)"""  # noqa: E501 - shown as it is


class Example(BaseModel):
    """A system prompt, a question under it, and what is answered."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    system_prompt: str
    question: str
    answer: str


class Examples(BaseModel):
    """The content of an examples file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    works: tuple[Example, ...]
    refined: Example | None = None
    fallback: Example | None = None

    @classmethod
    def load(cls, path: Path) -> "Examples":
        """Read an examples file.

        Raises:
            ConfigError: it is missing or not what it should be.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"--examples: cannot read {path}: {error.strerror}") from error
        except (ValidationError, ValueError) as error:
            raise ConfigError(f"--examples: {path} is not an examples file") from error

    def lines(self, *, url: str, model: str) -> Sequence[str]:
        """Return what to print below the ready line."""
        lines = ["", "Three prompts to try:" if len(self.works) == 3 else "Prompts to try:"]
        for number, example in enumerate(self.works, start=1):
            lines += [*_numbered(number, example.system_prompt), *_asked(example)]
        others = (
            (
                self.refined,
                "One whose recipe is measured to be worth too little: it answers with its prompt, "
                "is refined by itself, and then answers without:",
            ),
            (self.fallback, "And one that falls back to the full prompt in context:"),
        )
        number = len(self.works)
        for other, heading in others:
            if other is not None:
                number += 1
                lines += ["", heading, *_numbered(number, other.system_prompt)]
                lines += _asked(other)
        if self.works:
            lines += [
                "",
                "The first one, ready to paste:",
                "",
                *_program(self.works[0], url, model),
            ]
        return lines


def _numbered(number: int, prompt: str) -> list[str]:
    """Return a prompt under its number, to be read and pasted; far longer ones are cut."""
    first = f"  {number}. "
    text = " ".join(prompt.split())
    return textwrap.wrap(
        text, 100, initial_indent=first, subsequent_indent=" " * len(first), max_lines=_LINES,
        placeholder=" ...",
    )  # fmt: skip


def _asked(example: Example) -> list[str]:
    return [
        f"     question: {_one_line(example.question)}",
        f"     answer:   {_one_line(example.answer)}",
    ]


def _one_line(text: str, *, limit: int = 160) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 3]}..."


def _program(example: Example, url: str, model: str) -> list[str]:
    text = _PROGRAM.format(
        url=url + "/v1", prompt=example.system_prompt, question=example.question, model=model
    )
    return [f"{shlex.quote(_python())} - <<'END'", *text.splitlines(), "END"]


def _python() -> str:
    here = Path.cwd()
    python = Path(sys.executable)
    return str(python.relative_to(here) if python.is_relative_to(here) else python)
