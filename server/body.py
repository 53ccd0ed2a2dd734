"""Body: what any JSON request may hold, before its fields are looked at.

Python's parser lets through what JSON, UTF-8 or the workers cannot carry on: NaN, lone surrogates,
integers of any size, any depth and number of fields. Met later, each of them would be a 500.
"""

import math
from itertools import chain
from typing import Any, Final

MAX_DEPTH: Final = 64
MAX_FIELDS: Final = 4_096
"""Of one object; every unknown one of them would be an error of its own."""
MAX_INTEGER: Final = 2**63 - 1


def check_values(value: Any, depth: int = 0) -> None:
    """Check a parsed body.

    Raises:
        ValueError: it holds a value that cannot be passed on; the message says which kind.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"the request body is nested deeper than {MAX_DEPTH} levels")
    match value:
        case list():
            for item in value:
                check_values(item, depth + 1)
        case dict() if len(value) > MAX_FIELDS:
            raise ValueError(f"an object has more than {MAX_FIELDS} fields")
        case dict():
            for item in chain(value, value.values()):
                check_values(item, depth + 1)
        case _:
            _check_scalar(value)


def _check_scalar(value: Any) -> None:
    match value:
        case str() if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError("a text holds half a surrogate pair: not Unicode") from error
        case float() if not math.isfinite(value):
            raise ValueError("NaN and Infinity are not JSON numbers")
        case int() if abs(value) > MAX_INTEGER:
            raise ValueError("an integer does not fit 64 bits")
