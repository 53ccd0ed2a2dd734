"""Gateways for contract tests."""

import io
import logging
from collections.abc import Iterator

import pytest

from loragen.logs import JsonFormatter
from tests.fakes.gateway import Gateway, gateway, redis_shared, redis_store
from tests.fakes.valkey import Valkey


@pytest.fixture(scope="session")
def shared_gate(valkey: Valkey) -> Iterator[Gateway]:
    """One gateway for all tests that leave its processes alone; use `gate`."""
    with gateway(redis_shared(valkey.url, "shared"), "shared") as running:
        yield running


@pytest.fixture
def gate(shared_gate: Gateway, valkey: Valkey) -> Gateway:
    """A gateway over a real Redis-protocol server, a fake worker and a stub generator.

    Tasks and neighbours are as on the first day.
    """
    for key in valkey.client.scan_iter(f"{shared_gate.namespace}:*"):
        valkey.client.delete(key)
    shared_gate.reset()
    return shared_gate


@pytest.fixture
def own_gate(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    """A gateway of the test's own, whose neighbours it may kill."""
    with gateway(redis_store(valkey.url, namespace), namespace) as running:
        yield running


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything any logger says, as a process of ours would write it."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.setLevel(level)
    root.removeHandler(handler)
