"""docs/api.md says what the code does: its calls, its words, and promises that a test keeps."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from loragen.task import FallbackReason
from server.answer import Mode, Provenance
from server.api_page import PAGE, openapi, render
from server.http_errors import CONTROL_FIELDS

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / PAGE).read_text("utf-8")
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of all table rows in a text but the heads."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split(" |")]


def first_words(text: str) -> set[str]:
    """Return the words in backticks of the first column."""
    return {word for row in rows(text) for word in re.findall(r"`([^`]+)`", row[0])}


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_the_written_parts_are_those_of_the_code() -> None:
    assert render(TEXT, openapi()) == TEXT, "run: python -m server.api_page"


def test_every_call_has_a_promise() -> None:
    promised = {word.split()[-1] for word in first_words(section("Contract"))}
    assert {word for word in promised if word.startswith("/")} == set(openapi()["paths"])


def test_every_promise_names_tests_that_exist() -> None:
    promises = list(rows(section("Contract")))
    assert promises
    for _, behaviour, checked_by in promises:
        references = REFERENCE.findall(checked_by)
        assert references, behaviour
        for path, name in references:
            assert name in functions(ROOT / path), f"{path}::{name}"


def test_every_mode_and_every_reason_is_explained() -> None:
    explained = first_words(section("Modes"))
    assert explained == {*get_args(Mode), *get_args(FallbackReason)}


def test_every_header_and_usage_field_is_named() -> None:
    text = section("Headers and usage")
    assert all(f"`{field}`" in text for field in Provenance(mode="base").usage())
    given = Provenance(mode="prompt", task_id="t", recipe_id="r", fallback_reason="compiling")
    assert set(given.headers()) <= first_words(text)


def test_every_field_refused_by_name_is_listed() -> None:
    text = section("Errors").partition("Refused by name")[2]
    assert set(re.findall(r"`(\w+)`", text)) == CONTROL_FIELDS
