"""`python -m bench.power_cut`: what a power cut takes of tasks that were acknowledged (as root).

A Redis with the settings of `loragen up` writes to a file system in a file. Tasks are created
through the store, one after the other. At a moment that is drawn

cut   the server is stopped and the file is copied: what the kernel had not written to it is not in
      the copy, as after a power cut
kill  the server is killed, and all it wrote is there

A server started on what is left is asked for every task that was acknowledged.
"""

import asyncio
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
import typer

from bench.made_tasks import TaskMaker
from bench.progress import say
from bench.provenance import provenance
from bench.stub_worker import POOL_ID, TEMPLATE_HASH
from config.ports import free_port
from config.redis_server import RedisServer
from loragen.keys import TenantKeys
from loragen.redis_store import RedisStore

IMAGE_MB: Final = 48
WARMUP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A task and when its creation was acknowledged."""

    id: str
    at: float


class Lost(NamedTuple):
    """How many tasks were acknowledged and how many of them lost, the oldest how long before."""

    acknowledged: int
    tasks: int
    seconds: float


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    rounds: Annotated[int, typer.Option(help="Power cuts, and as many kills.", min=2)] = 20,
) -> None:
    """End Redis under load by power cuts and kills, and count what it had acknowledged and lost."""
    if os.geteuid() != 0:
        raise typer.BadParameter("mounting file systems takes root")
    chance = random.Random(0)
    report = provenance("bench.power_cut")
    for way in ("cut", "kill"):
        lost = []
        for number in range(rounds):
            with tempfile.TemporaryDirectory(prefix="loragen-bench-") as name:
                after = WARMUP_SECONDS + 2 * chance.random()
                lost.append(_lost(Path(name), after=after, is_cut=way == "cut"))
            say(f"{way} {number + 1}/{rounds}: {lost[-1]}")
        report[way] = _summary(lost)
    out.write_text(json.dumps(report, indent=2) + "\n")
    say(json.dumps(report))


def _summary(lost: list[Lost]) -> dict[str, Any]:
    tasks, windows = [each.tasks for each in lost], [each.seconds for each in lost]
    return {
        "rounds": len(lost),
        "tasks_acknowledged": sum(each.acknowledged for each in lost),
        "tasks_lost": {"median": float(np.median(tasks)), "max": max(tasks)},
        "window_seconds": {
            "median": round(float(np.median(windows)), 3),
            "max": round(max(windows), 3),
        },
    }


def _lost(folder: Path, *, after: float, is_cut: bool) -> Lost:
    """Return what was gone."""
    image, copy, mounted = folder / "image", folder / "copy", folder / "mounted"
    password, keys = secrets.token_hex(16), TenantKeys((secrets.token_bytes(32),), "tenant")
    with image.open("wb") as file:
        file.truncate(IMAGE_MB * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    mounted.mkdir()
    with _mounted(image, mounted), _running(mounted, password) as (server, process):
        made = asyncio.run(_create(server.url, keys, seconds=after))
        ended_at = time.monotonic()
        process.send_signal(signal.SIGSTOP if is_cut else signal.SIGKILL)
        if is_cut:
            shutil.copyfile(image, copy)
    with _mounted(copy if is_cut else image, mounted), _running(mounted, password) as (server, _):
        left = asyncio.run(_left(server.url, [each.id for each in made]))
    missing = [each for each in made if each.id not in left]
    return Lost(len(made), len(missing), ended_at - missing[0].at if missing else 0.0)


async def _create(url: str, keys: TenantKeys, *, seconds: float) -> list[Acknowledged]:
    maker = TaskMaker(keys, pool_id=POOL_ID, template_hash=TEMPLATE_HASH)
    store = _store(url)
    made = []
    until = time.monotonic() + seconds
    for each in maker.tasks(0, 1_000_000):
        if time.monotonic() > until:
            break
        await store.create(each.task)
        made.append(Acknowledged(each.task.id, time.monotonic()))
    await store.close()
    return made


async def _left(url: str, ids: list[str]) -> set[str]:
    store = _store(url)
    try:
        return {each for each in ids if await store.get("tenant", each)}
    finally:
        await store.close()


def _store(url: str) -> RedisStore:
    return RedisStore.connect(
        url, namespace="loragen", recipe_ttl_seconds=3600, timeout_seconds=10.0
    )


@contextmanager
def _mounted(image: Path, folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def _running(
    folder: Path, password: str
) -> Iterator[tuple[RedisServer, "subprocess.Popen[bytes]"]]:
    server = RedisServer(folder / "redis", free_port(), password)
    process = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not asyncio.run(server.is_ready()):
            if time.monotonic() > deadline:
                raise RuntimeError("Redis did not start")
            time.sleep(0.05)
        yield server, process
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    typer.run(main)
