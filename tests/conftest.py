"""Fixtures shared by all tests."""

import logging
import os
from collections.abc import Iterator
from itertools import count

import hypothesis
import pytest

from config.environment import CONFIG_VARIABLE
from tests.fakes.valkey import Valkey

pytest.register_assert_rewrite(
    "tests.contract.generator_contract",
    "tests.contract.lease_contract",
    "tests.contract.names_contract",
    "tests.contract.recipe_contract",
    "tests.contract.sightings_contract",
    "tests.contract.store_contract",
    "tests.contract.tenants_contract",
    "tests.contract.worker_contract",
)

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

_namespaces = count()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the files that are not ours to ship."""
    parser.addoption("--kuberay-crd", help="KubeRay's ray.io_rayservices.yaml, to check ours with")


def pytest_itemcollected(item: pytest.Item) -> None:
    """With several processes, keep tests that share an expensive start in one of them.

    Here, because pytest-xdist reads the groups before a conftest may change a collection.
    """
    folder, file = item.path.parent.name, item.path.stem
    item.add_marker(pytest.mark.xdist_group(folder if folder == "e2e" else file))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's configuration out of the tests."""
    for name in list(os.environ):  # noqa: TID251 - this is where it is cleaned
        if name.startswith("LORAGEN_") or name == CONFIG_VARIABLE:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Undo `configure_logs` of commands run inside a test: its stream ends with the test."""
    root, client = logging.getLogger(), logging.getLogger("httpx")
    state = (root.level, list(root.handlers), client.level)
    yield
    root.setLevel(state[0])
    root.handlers[:] = state[1]
    client.setLevel(state[2])


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One real Redis-protocol server for the whole session; see `namespace`."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.kill()


@pytest.fixture
def namespace() -> str:
    """A key namespace of the running test alone."""
    return f"test-{next(_namespaces)}"
