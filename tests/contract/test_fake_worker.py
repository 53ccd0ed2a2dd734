"""The fake worker keeps the contract of the real one."""

from collections.abc import Iterator

import pytest

from tests.contract.worker_contract import WorkerContract, WorkerUnderTest
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.live import live
from tests.fakes.stub_generator import recipe_of


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerUnderTest]:
    """A fake worker behind a socket."""
    fake = FakeWorker()
    assert fake.key is not None
    with live(fake.app) as server:
        yield WorkerUnderTest(server.url, fake.key, recipe_of("You are Ada."))


class TestFakeWorker(WorkerContract):
    """Runs the contract."""
