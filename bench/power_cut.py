"""`python -m bench.power_cut`: what a power cut takes of tasks that were acknowledged (as root).

A Redis with the settings of `loragen up` writes to a file system in a file. Tasks are created
through the store, one after the other. At a moment that is drawn the server is stopped and the file
is copied: what the kernel had not written to it is not in the copy, as after a power cut. A server
started on the copy is asked for every task that was acknowledged.

A server that is only killed loses nothing: what it wrote is the kernel's by then.
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
from typing import Annotated, Final

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


def main(
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")],
    cuts: Annotated[int, typer.Option(help="Power cuts.", min=2)] = 20,
) -> None:
    """Cut the power of Redis under load, and count what it had acknowledged and lost."""
    if os.geteuid() != 0:
        raise typer.BadParameter("mounting file systems takes root")
    chance = random.Random(0)
    lost, windows, written = [], [], 0
    for number in range(cuts):
        with tempfile.TemporaryDirectory(prefix="loragen-bench-") as name:
            made, cut_at, left = _cut(Path(name), after=WARMUP_SECONDS + 2 * chance.random())
        missing = [each for each in made if each.id not in left]
        written += len(made)
        lost.append(len(missing))
        windows.append(cut_at - missing[0].at if missing else 0.0)
        say(f"cut {number + 1}/{cuts}: {lost[-1]} of {len(made)} lost, {windows[-1]:.2f} s")
    report = {
        **provenance("bench.power_cut"),
        "cuts": cuts,
        "tasks_acknowledged": written,
        "tasks_lost": {"median": float(np.median(lost)), "max": max(lost)},
        "window_seconds": {
            "median": round(float(np.median(windows)), 3),
            "max": round(max(windows), 3),
        },
    }
    out.write_text(json.dumps(report, indent=2) + "\n")
    say(json.dumps(report))


def _cut(folder: Path, *, after: float) -> tuple[list[Acknowledged], float, set[str]]:
    """Return what was acknowledged, when the power went, and the ids that were left."""
    image, copy, mounted = folder / "image", folder / "copy", folder / "mounted"
    password, keys = secrets.token_hex(16), TenantKeys((secrets.token_bytes(32),), "tenant")
    with image.open("wb") as file:
        file.truncate(IMAGE_MB * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    mounted.mkdir()
    with _mounted(image, mounted), _running(mounted, password) as (server, process):
        made = asyncio.run(_create(server.url, keys, seconds=after))
        cut_at = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        shutil.copyfile(image, copy)
    with _mounted(copy, mounted), _running(mounted, password) as (server, _):
        left = asyncio.run(_left(server.url, [each.id for each in made]))
    return made, cut_at, left


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
    server = RedisServer(folder / "redis", free_port("127.0.0.1"), password)
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
