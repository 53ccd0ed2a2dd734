"""When requests come and how long they are, from a trace, scaled to any rate.

The format is that of the Azure LLM inference traces: TIMESTAMP,ContextTokens,GeneratedTokens, one
request a line, plain or gzipped. Rates keep the trace's order and burstiness: only time is scaled.
"""

import csv
import gzip
import random
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

AZURE: Final = Path(__file__).parent / "traces" / "azure_llm_2023_conv_2000.csv.gz"
_MICROSECONDS: Final = len("2023-11-16 18:15:46.680590")
"""The traces have a digit more than `datetime` reads."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a replay: seconds from its begin, and tokens."""

    at_seconds: float
    message_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests as they were recorded: seconds from the first, tokens of context and answer."""

    rows: tuple[tuple[float, int, int], ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a trace.

        Raises:
            ValueError: a line is not of the format, or there are no two requests.
        """
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        try:
            rows = sorted(
                (
                    datetime.fromisoformat(row["TIMESTAMP"][:_MICROSECONDS]).timestamp(),
                    int(row["ContextTokens"]),
                    int(row["GeneratedTokens"]),
                )
                for row in csv.DictReader(text.splitlines())
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}: not TIMESTAMP,ContextTokens,GeneratedTokens") from error
        if len(rows) < 2 or rows[0][0] == rows[-1][0]:
            raise ValueError(f"{path}: fewer than two requests")
        return cls(tuple((at - rows[0][0], context, answer) for at, context, answer in rows))

    def replay(self, count: int, rate: float, *, seed: int, shape: "Shape") -> list[Arrival]:
        """Return `count` requests in a row from a place that `seed` draws, `rate` a second.

        Raises:
            ValueError: the trace is shorter.
        """
        if count > len(self.rows):
            raise ValueError(f"the trace has {len(self.rows)} requests, not {count}")
        first = random.Random(seed).randrange(len(self.rows) - count + 1)
        rows = self.rows[first : first + count]
        begin, span = rows[0][0], rows[-1][0] - rows[0][0]
        scale = (count - 1) / rate / span if span else 0.0
        return [
            Arrival(
                at_seconds=(at - begin) * scale,
                message_tokens=shape.message_tokens(context),
                answer_tokens=min(max(answer, shape.answer[0]), shape.answer[1]),
            )
            for at, context, answer in rows
        ]


@dataclass(frozen=True, slots=True)
class Shape:
    """How a recorded request becomes one with a system prompt of a fixed length.

    The context of the trace is the prompt and a message; message and answer are kept within what a
    small model can take.
    """

    prompt_tokens: int
    message: tuple[int, int]
    answer: tuple[int, int]

    def message_tokens(self, context_tokens: int) -> int:
        """Return what is left of a recorded context beyond the prompt, within bounds."""
        least, most = self.message
        return min(max(context_tokens - self.prompt_tokens, least), most)
