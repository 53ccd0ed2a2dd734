"""Errors as responses."""

import pytest

from loragen.errors import LimitExceeded
from server.http_errors import error_response


@pytest.mark.parametrize(("seconds", "told"), [(0.2, "1"), (7.0, "7"), (7.4, "8"), (60.999, "61")])
def test_who_comes_back_when_told_is_not_too_early(seconds: float, told: str) -> None:
    error = LimitExceeded("too many requests", param="requests", retry_after=seconds)
    assert error_response(error).headers["retry-after"] == told
