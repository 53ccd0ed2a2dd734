"""No body brings a value that a later step cannot carry on."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.body import MAX_DEPTH, check_values

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)


@given(PLAIN)
def test_what_json_can_say_passes(value: Any) -> None:
    check_values(value)
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "NaN"),
        (float("-inf"), "Infinity"),
        ({"a": [float("inf")]}, "Infinity"),
        (2**63, "64 bits"),
        (-(2**70), "64 bits"),
        ("half \ud83d", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ([["\ud800"]], "surrogate"),
        (nested(MAX_DEPTH + 1), "deeper"),
        ({"a": {"b": nested(MAX_DEPTH)}}, "deeper"),
    ],
)
def test_other_values_are_refused_with_the_reason(value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_values(value)


def test_the_deepest_allowed_body_passes() -> None:
    check_values(nested(MAX_DEPTH))
