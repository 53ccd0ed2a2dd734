"""Growth: JSON values out of bytes, so that who turns bytes over gets past the parser.

Equal bytes are equal values. Names are those of our API, or no request would get past its first
field.
"""

import math
import struct
from typing import Any, Final

NAMES: Final = (
    "model", "messages", "role", "content", "type", "text", "tools", "function", "name",
    "parameters", "description", "strict", "system_prompt", "task_id", "loragen", "mode", "stream",
    "stream_options", "include_usage", "n", "max_tokens", "stop", "prompt", "input", "output",
    "instructions", "tool_choice", "tool_calls", "call_id", "arguments", "id", "probes", "policy",
    "min_fidelity", "loragen_recipe", "edge_model", "recipe", "metadata", "logit_bias", "seed",
    "response_format", "json_schema", "schema", "store", "usage", "choices", "error", "code",
)  # fmt: skip
WORDS: Final = (
    *NAMES, "demo", "system", "developer", "user", "assistant", "tool", "auto", "compile", "keep",
    "required", "none", "input_text", "output_text", "function_call", "function_call_output",
    "message", "json_object", "", " ", "\x00", "\r\n", "\ud800", "\u2028", "\N{PILE OF POO}",
    "../..", "{{ 7 * 7 }}", "{% raise %}", "</s>", "<|im_end|>", "a" * 300, "ab" * 32,
)  # fmt: skip
_FLOATS: Final = (0.0, -0.0, 1.5, -1.0, 1e308, 5e-324, math.inf, -math.inf, math.nan)
_MAX_DEPTH: Final = 6
_MAX_ITEMS: Final = 6


class Growth:
    """Reads a value at a time; bytes that have come to their end are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """Return the next byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def value(self, depth: int = 0) -> Any:
        """Return the next value."""
        match self.byte() % (8 if depth < _MAX_DEPTH else 6):
            case 0:
                return None
            case 1:
                return bool(self.byte() % 2)
            case 2:
                return self._whole()
            case 3:
                return self._fraction()
            case 4:
                return WORDS[self.byte() % len(WORDS)]
            case 5:
                return self._text()
            case 6:
                return [self.value(depth + 1) for _ in range(self.byte() % _MAX_ITEMS)]
            case _:
                return self.fields(depth + 1)

    def fields(self, depth: int = 0) -> dict[str, Any]:
        """Return the next object."""
        return {
            NAMES[self.byte() % len(NAMES)]: self.value(depth)
            for _ in range(self.byte() % (2 * _MAX_ITEMS))
        }

    def _take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def _whole(self) -> int:
        size = self.byte()
        if size == 255:
            return 10**400
        return int.from_bytes(self._take(size % 10), "little", signed=True)

    def _fraction(self) -> float:
        kind = self.byte()
        if kind % 2:
            return _FLOATS[kind // 2 % len(_FLOATS)]
        value: float = struct.unpack("<d", self._take(8).ljust(8, b"\0"))[0]
        return value

    def _text(self) -> str:
        return self._take(self.byte() % 40).decode("utf-8", "surrogateescape")
