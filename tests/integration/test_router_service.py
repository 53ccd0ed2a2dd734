"""The router service as a real process: Ray Serve, a tiny real generator, kills and clean ends."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from config.environment import child_environment
from tests.contract.generator_contract import (
    EDGE_MODEL,
    MAX_BODY_BYTES,
    SECRET,
    GeneratorContract,
    bearer,
    compile_prompt,
)
from tests.contract.refiner_contract import RefinerContract
from tests.fakes.router_service_process import ROOT, RouterServiceProcess

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

PRIVATE = "MEMBERSHIP-NUMBER-4711"
LISTEN = "0A"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterServiceProcess]:
    folder = tmp_path_factory.mktemp("router")
    running = RouterServiceProcess(folder, secret=SECRET, max_body_bytes=MAX_BODY_BYTES)
    try:
        yield running.wait_ready()
    finally:
        running.stop()


@pytest.fixture
async def client(service: RouterServiceProcess) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=300)
    async with httpx.AsyncClient(
        base_url=service.url, timeout=90, limits=limits, trust_env=False
    ) as client:
        yield client


class TestRealService(GeneratorContract):
    """The contract, through Serve's proxy, the front's actor and the generator's actor."""


class TestRealRefining(RefinerContract):
    """The contract of refining, in the refiner's actor on the tiny edge model."""


async def test_concurrent_prompts_share_batches(
    service: RouterServiceProcess, client: httpx.AsyncClient
) -> None:
    before = len(service.batches())
    replies = await asyncio.gather(*(compile_prompt(client, f"batched {i}") for i in range(40)))
    assert {reply.status_code for reply in replies} == {200}
    # Ray forwards log lines in its own time, those of tests before this one too.
    await asyncio.to_thread(wait_until, lambda: sum(service.batches()[before:]) >= 40)
    assert len(service.batches()) - before < 40


async def test_beyond_the_queue_is_503_and_what_was_taken_is_answered(
    client: httpx.AsyncClient,
) -> None:
    replies = await asyncio.gather(*(compile_prompt(client, f"queued {i}") for i in range(200)))
    refused = [reply for reply in replies if reply.status_code == 503]
    assert refused
    assert {reply.status_code for reply in replies} == {200, 503}
    assert {reply.json()["error"]["code"] for reply in refused} == {"overloaded"}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)


async def test_a_state_listing_shows_the_live_actor_with_the_generator(
    service: RouterServiceProcess,
) -> None:
    first = service.actors()[0]
    assert (first[1], first[2]) == ("ServeReplica:loragen:generator-cloud-tiny", "ALIVE")
    assert int(first[3]) in service.family()


async def test_a_killed_actor_comes_back_and_no_compile_is_lost(
    service: RouterServiceProcess, client: httpx.AsyncClient
) -> None:
    pid = int(service.actors()[0][3])
    os.kill(pid, signal.SIGKILL)
    replies = await asyncio.gather(*(compile_prompt(client, f"revived {i}") for i in range(6)))
    assert {reply.status_code for reply in replies} == {200}
    assert pid not in {int(row[3]) for row in service.actors() if row[2] == "ALIVE"}


async def test_its_actors_are_as_nice_as_it_is(service: RouterServiceProcess) -> None:
    own = os.getpriority(os.PRIO_PROCESS, service.service_pid)
    actors = [int(row[3]) for row in service.actors() if row[2] == "ALIVE"]
    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in actors] == [own] * len(actors) != []


async def test_nothing_listens_beyond_loopback(service: RouterServiceProcess) -> None:
    own = {inode for pid in service.family() for inode in socket_inodes(pid)}
    listening = {address for address, inode in listeners() if inode in own}
    assert listening
    assert all(is_loopback(address) for address in listening), listening


async def test_prompts_are_in_no_log(
    service: RouterServiceProcess, client: httpx.AsyncClient
) -> None:
    for prompt in (PRIVATE, PRIVATE + "x" * 1_000):
        await compile_prompt(client, prompt)
    await client.post("/compile", json={"prompt": PRIVATE}, headers=bearer())
    probes = [{"input": f"{PRIVATE} {number}"} for number in range(8)]
    body = {"edge_model": EDGE_MODEL, "prompt": PRIVATE, "probes": probes}
    assert (await client.post("/refine", json=body, headers=bearer())).status_code == 200
    body["probes"] = [*probes, {"input": PRIVATE * 20}]
    assert (await client.post("/refine", json=body, headers=bearer())).status_code == 400
    assert files_with(PRIVATE, [service.log.parent, service.ray_folder]) == []


def test_a_generator_that_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"edge_models: [{{name: a, model: m, generator: {tmp_path}}}]")
    done = subprocess.run(
        (sys.executable, "-m", "router_service", "--config", str(config)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=child_environment(LORAGEN_STATE_DIR=str(tmp_path / "state")),
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == f"router service: no config.json in generator folder {tmp_path}\n"


def test_sigterm_leaves_no_process_and_no_file(service: RouterServiceProcess) -> None:
    """The last test of this module: it ends the service."""
    family = service.family()
    assert len(family) > 5
    ray_folder = service.ray_folder
    assert ray_folder.is_dir()
    started = time.monotonic()
    os.kill(service.service_pid, signal.SIGTERM)
    assert service.process.wait(30) == 0
    assert time.monotonic() - started < 15
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
    assert not ray_folder.exists()
    assert not (service.state_dir / "ray_address").exists()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def files_with(text: str, folders: Sequence[Path]) -> list[Path]:
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text in path.read_text(errors="replace")]


def socket_inodes(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def listeners() -> Iterator[tuple[str, str]]:
    """Yield the address and inode of every listening TCP socket."""
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN:
                yield address_of(fields[1].partition(":")[0]), fields[9]


def address_of(text: str) -> str:
    """Return the address that /proc writes as little-endian words."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    packed = b"".join(words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"
