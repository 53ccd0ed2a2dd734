"""docs/security.md promises nothing that no test keeps."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "security.md").read_text("utf-8")
REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PROMISES = [
    [cell.strip() for cell in line.strip("|").split(" |")]
    for line in TEXT.partition("\n## Promises\n")[2].partition("\n## ")[0].splitlines()
    if line.startswith("|")
][2:]


@cache
def functions(path: Path) -> frozenset[str]:
    """Return the names of a file's functions."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def test_there_are_promises() -> None:
    assert len(PROMISES) > 20


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise[0][:60])
def test_every_promise_has_a_figure_and_names_tests_that_exist(promise: list[str]) -> None:
    text, tests, figure = promise
    references = REFERENCE.findall(tests)
    assert references, text
    assert figure, text
    assert tests == ", ".join(f"`{path}::{name}`" for path, name in references)
    for path, name in references:
        assert name in functions(ROOT / path), f"{path}::{name}"


def test_settings_and_files_that_it_names_exist() -> None:
    configuration = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for section, name in re.findall(r"`(server|limits)\.(\w+)", TEXT):
        assert f"`{name}`" in configuration or f"{section}.{name}" in configuration
    for target in re.findall(r"\]\(([^)#:]+)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text("utf-8")
