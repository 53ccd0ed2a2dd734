"""`loragen refine` against a server that answers as told."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

from config import refine
from config.cli import cli
from tests.fakes.live import LiveServer, live

PROBES = [{"input": "Hi ü?"}, {"input": "And?", "output": "So."}]
RUNNING = {"status": "running"}
DONE = {
    "status": "done", "reason": None, "fidelity_before": 0.5, "fidelity_after": 0.91,
    "seconds": 3.14,
}  # fmt: skip


@dataclass
class Server:
    """A server that shows these states of a refine, one after the other."""

    states: list[Any] = field(default_factory=lambda: [RUNNING, DONE])
    status: int = 202
    asked: Any = None

    @property
    def app(self) -> Starlette:
        path = "/v1/tasks/task_a"
        return Starlette(
            routes=[
                Route(f"{path}/refine", self._refine, methods=["POST"]),
                Route(path, self._show),
            ]
        )

    async def _refine(self, request: Request) -> Response:
        self.asked = await request.json()
        if self.status != 202:
            return JSONResponse({"error": {"message": "too few"}}, status_code=self.status)
        return JSONResponse({"refine": RUNNING}, status_code=202)

    async def _show(self, _: Request) -> Response:
        return JSONResponse({"refine": self.states.pop(0)})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def running(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setattr(refine, "POLL_SECONDS", 0.01)
    with live(server.app) as running:
        yield running


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    path = tmp_path / "probes.jsonl"
    path.write_text("\n".join(json.dumps(probe) for probe in PROBES) + "\n\n")
    return path


def run(running: LiveServer, probes: Path) -> Result:
    arguments = ["refine", "task_a", "--probes", str(probes), "--url", running.url]
    return CliRunner().invoke(cli, arguments)


def test_it_waits_and_says_what_came_of_it(
    server: Server, running: LiveServer, probes: Path
) -> None:
    result = run(running, probes)
    assert result.output == "done: fidelity 0.50 before, 0.91 after; 3.1 s\n"
    assert result.exit_code == 0
    assert server.asked == {"probes": PROBES}


@pytest.mark.parametrize(
    ("states", "said", "code"),
    [
        (
            [{**DONE, "status": "kept", "reason": "not_better"}],
            "kept (not_better): fidelity 0.50 before, 0.91 after; 3.1 s\n",
            0,
        ),
        (
            [{**DONE, "status": "kept", "reason": "x", "fidelity_after": None}],
            "kept (x); 3.1 s\n",
            0,
        ),
        ([{"status": "failed", "reason": "x"}], "failed (x): the task is as it was\n", 1),
        (
            [RUNNING, None],
            "loragen: the gateway that refined the task has ended; refine it again\n",
            1,
        ),
    ],
)
def test_every_end_is_told(
    server: Server, running: LiveServer, probes: Path, states: list[Any], said: str, code: int
) -> None:
    server.states = states
    result = run(running, probes)
    assert (result.output, result.exit_code) == (said, code)


def test_a_refusal_is_told(server: Server, running: LiveServer, probes: Path) -> None:
    server.status = 400
    result = run(running, probes)
    assert (result.output, result.exit_code) == ("loragen: too few\n", 1)
    running.kill()
    result = run(running, probes)
    assert result.output == f"loragen: the server at {running.url} does not answer\n"


def test_an_unreadable_file_is_named(running: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("no json")
    for name in ("bad.jsonl", "none.jsonl"):
        result = run(running, tmp_path / name)
        assert (result.exit_code, "--probes" in result.output) == (2, True)
