"""Errors cross process borders and become HTTP answers: both by their class alone."""

import pickle
import re

import pytest

from loragen import errors
from loragen.errors import LoragenError, StartupError


def _descendants(root: type[LoragenError]) -> list[type[LoragenError]]:
    return [root, *(found for child in root.__subclasses__() for found in _descendants(child))]


CLASSES = [kind for kind in _descendants(LoragenError) if kind.__module__ == errors.__name__]
HTTP = [kind for kind in CLASSES if not issubclass(kind, StartupError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickle_with_its_fields(kind: type[LoragenError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what", param="where", retry_after=2.5)))
    assert type(copy) is kind
    assert (copy.message, copy.param, copy.retry_after, str(copy)) == ("what", "where", 2.5, "what")


@pytest.mark.parametrize("kind", HTTP, ids=lambda kind: kind.__name__)
def test_every_error_has_an_openai_body(kind: type[LoragenError]) -> None:
    body = kind("what", param="where").body()
    assert body == {
        "error": {"message": "what", "type": kind.type, "param": "where", "code": kind.code}
    }
    assert (kind.type == "server_error") == (kind.status >= 500)


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn: dict[str, tuple[str | None, int, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"((?:\|  |   )*)(\|- |`- )?([A-Z]\w+) +(\d{3}) (\w+)", line)
        if found is None:
            continue
        depth = len(found[1]) // 3 + bool(found[2])
        path = [*path[:depth], found[3]]
        drawn[found[3]] = (path[-2] if depth else None, int(found[4]), found[5])
    actual = {
        kind.__name__: (
            None if kind is LoragenError else kind.__mro__[1].__name__,
            kind.status,
            kind.code,
        )
        for kind in HTTP
    }
    assert drawn == actual


def test_start_up_errors_have_an_exit_code_of_their_own() -> None:
    kinds = [kind for kind in CLASSES if issubclass(kind, StartupError)]
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    assert all(f"{k.__name__} (exit {k.exit_code})" in (errors.__doc__ or "") for k in kinds[1:])
