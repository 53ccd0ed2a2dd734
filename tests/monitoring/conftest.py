"""One stack, one Prometheus and one load for all tests of monitoring."""

from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack
from tests.monitoring.load import Load
from tests.monitoring.prometheus import Prometheus


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("stack"))
    try:
        running.wait_ready()
        with Load(running).running():
            yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


@pytest.fixture(scope="session")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    running = Prometheus(
        tmp_path_factory.mktemp("prometheus"),
        {
            "loragen-server": stack.url.removeprefix("http://"),
            "loragen-worker": stack.worker_url.removeprefix("http://"),
            "loragen-router-service": f"127.0.0.1:{stack.generator_metrics_port}",
        },
    )
    try:
        running.wait_ready()
        yield running
    finally:
        running.close()
