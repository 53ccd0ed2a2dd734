"""A checkpoint is upgraded on a running stack: two real workers of two pools, and no wrong answer.

The second checkpoint answers as the first one does, each under its own recipes alone.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from config.cli import cli
from tests.e2e.stack import CHECKPOINT, Stack, small_model, wait_until
from tests.fakes.reordered import reordered

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def upgrading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("upgrade")
    new = reordered(CHECKPOINT / "generator", folder / "new")
    running = Stack(folder, first=small_model() | {"next_generator": str(new)})
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def pools(stack: Stack, *command: str) -> dict[str, Any]:
    """Run `loragen pools` and return what it lists afterwards of the only edge model."""
    config = ["--config", str(stack.state.parent / "stack.yaml")]
    for arguments in filter(None, (command, ("list", "--json"))):
        done = CliRunner().invoke(cli, ["pools", *arguments, *config])
        assert done.exit_code == 0, done.output
    (listed,) = json.loads(done.stdout)
    assert isinstance(listed, dict)
    return listed


def answers(stack: Stack, ids: list[str]) -> tuple[list[str], set[str]]:
    """Return the answers of all tasks, and the modes they came in, with reasons."""
    texts, modes = [], set()
    for task_id in ids:
        reply = stack.ask("Say hello.", task_id)
        assert reply.status_code == 200, reply.text
        texts.append(reply.json()["choices"][0]["message"]["content"])
        reason = reply.headers.get("x-loragen-fallback-reason")
        modes.add(" ".join(filter(None, (reply.headers["x-loragen-mode"], reason))))
    return texts, modes


def test_upgrade_switch_and_rollback_keep_every_answer(upgrading: Stack) -> None:
    # Ready is a gateway that knows one worker.
    wait_until(lambda: len(pools(upgrading)["workers"]) == 2, 60)
    prompts = [f"Always end your answer with the words number {number}." for number in range(8)]
    ids = [upgrading.create(prompt)["id"] for prompt in prompts]
    before = upgrading.http.get(f"/v1/tasks/{ids[0]}").json()["recipe"]
    expected = answers(upgrading, ids)
    assert expected[1] == {"compiled"}
    found = pools(upgrading)
    (new,) = set(found["workers"]) - {before["pool_id"]}
    pools(upgrading, "upgrade", "demo", "--pool", new)
    wait_until(lambda: (pools(upgrading)["progress"] or {}).get("ready_tasks") == 8, 60)
    assert answers(upgrading, ids) == expected
    found = pools(upgrading, "switch", "demo")
    assert (found["serving"], found["previous"]) == (new, before["pool_id"])
    upgrading.forget_memory()
    assert answers(upgrading, ids) == expected
    after = upgrading.http.get(f"/v1/tasks/{ids[0]}").json()["recipe"]
    assert (after["pool_id"], after["id"] != before["id"]) == (new, True)
    pools(upgrading, "rollback", "demo")
    upgrading.forget_memory()
    assert answers(upgrading, ids) == expected
    assert upgrading.http.get(f"/v1/tasks/{ids[0]}").json()["recipe"] == before
