"""One stack for all end-to-end tests; the last of them ends it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragen.method.edge import EdgeModel
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.template import CompiledTemplate
from tests.e2e.reference import Reference
from tests.e2e.stack import CHECKPOINT, Stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("stack"))
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


@pytest.fixture(scope="session")
def reference() -> Reference:
    pool = Pool.load(CHECKPOINT / "generator" / "pool.safetensors")
    return Reference(
        EdgeModel.load(CHECKPOINT / "edge", pool),
        Generator.load(CHECKPOINT / "generator"),
        CompiledTemplate.load(CHECKPOINT / "edge" / "compiled_template.jinja"),
        CHECKPOINT / "edge",
    )


@pytest.fixture(scope="session")
def examples() -> list[dict[str, str]]:
    content = json.loads((CHECKPOINT / "prompts.json").read_text())
    works: list[dict[str, str]] = content["works"]
    return works
