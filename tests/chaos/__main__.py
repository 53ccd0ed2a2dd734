"""`python -m tests.chaos`: hours of bad luck in a quarter of an hour, over everything that is real.

Two gateways, two vLLM workers of two pools, Ray, Redis; tenants whose every task answers one
question as no other does. While clients ask and names are pointed at other prompts, parts are
killed, stopped, starved and cut off, and pools are upgraded and rolled back. Every request must get
the right answer or a well-formed error, no request another task's answer, and nothing that was
acknowledged may be lost.
"""

import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from bench.provenance import provenance
from loragen.training.checkpoint import Layout
from tests.chaos.canaries import Canary, CanaryCage
from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.tenants import Editor, Slot
from tests.chaos.traffic import Broken, Traffic
from tests.e2e.stack import CHECKPOINT, MODEL, wait_until

logger = logging.getLogger(__name__)

RECOVERY_SECONDS: Final = 300.0
WORKER_KILLS: Final = 8
SPARE_SHARE: Final = 0.2
MISDIRECTED: Final = "is to another request"
"""In the log of a gateway that got a reply to something else."""
_SETTLE_SECONDS: Final = 1.5


class Edits:
    """A thread that edits names all the time, but while it is told to pause."""

    def __init__(
        self, editor: Editor, slots: Sequence[Slot], spare: Sequence[Canary], seed: int
    ) -> None:
        self._editor, self._slots, self._spare = editor, slots, deque(spare)
        self._chance = random.Random(f"edits {seed}")
        self._may_edit = threading.Lock()
        self._ending = threading.Event()
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Edit nothing within the block, which begins when the last edit is on disk."""
        with self._may_edit:
            time.sleep(_SETTLE_SECONDS)
            yield

    def end(self) -> None:
        """Finish the edit in progress."""
        self._ending.set()
        self._thread.join(300)

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._ending.is_set():
                with self._may_edit:
                    try:
                        self._edit(client)
                    except AssertionError as error:
                        self.failures.append(str(error))
                self._ending.wait(0.3)

    def _edit(self, client: httpx.Client) -> None:
        slot = self._chance.choice(self._slots)
        before, after = slot.current, self._spare.popleft()
        if before is not None and self._chance.random() < 0.3:
            self._editor.delete(client, slot)
        self._editor.put(client, slot, after)
        if before is not None:
            self._spare.append(before)


def plan(faults: int, seed: int, *, has_own_disk: bool) -> list[Fault]:
    """Return so many faults in a random order; 23 hold one of each kind and eight worker kills."""
    chance = random.Random(f"faults {seed}")
    kinds = [fault for fault in FAULTS if has_own_disk or fault.name != "redis_full_disk"]
    kills = [fault for fault in kinds if "worker_kill" in fault.name]
    chosen = [*kinds, *kills * (WORKER_KILLS // len(kills) - 1)]
    others = [fault for fault in kinds if not fault.hits_worker]  # workers start slowly
    chosen += [chance.choice(others) for _ in range(faults - len(chosen))]
    chance.shuffle(chosen)
    return chosen[:faults]


class Storm:
    """Strikes with faults, one after the other, and notes how long each takes to heal."""

    def __init__(self, cluster: Cluster, edits: Edits) -> None:
        self._cluster, self._edits = cluster, edits
        self.recoveries: dict[str, list[float]] = defaultdict(list)
        self._down: list[tuple[str, float, float]] = []
        self._healing = ThreadPoolExecutor(1)

    def strike(self, fault: Fault) -> None:
        """Do one fault; worker faults heal while others go on, but never two at once."""
        if fault.hits_worker:
            wait_until(self._cluster.are_workers_healthy, RECOVERY_SECONDS)
        logger.info("fault: %s", fault.name)
        if fault.gateway is not None:
            self._take_down(fault, self._cluster.gateways[fault.gateway])
            return
        if fault.loses_unsaved:
            with self._edits.paused():
                fault.strike(self._cluster)
                self._heal(fault)
            return
        fault.strike(self._cluster)
        if fault.hits_worker:
            time.sleep(2)  # until it is seen to be away
            self._healing.submit(self._heal, fault)
        else:
            self._heal(fault)

    def unexplained(self, broken: Sequence[Broken]) -> list[str]:
        """Return what broke at gateways that were up."""
        return [
            f"broke: {each}"
            for each in broken
            if not any(
                url == each.gateway and each.started < end and start < each.ended
                for url, start, end in self._down
            )
        ]

    def _take_down(self, fault: Fault, url: str) -> None:
        started = time.monotonic()
        fault.strike(self._cluster)
        self._heal(fault)
        self._down.append((url, started, time.monotonic()))

    def end(self) -> None:
        """Wait until all is well."""
        self._healing.shutdown()
        self._cluster.wait_healthy()

    def _heal(self, fault: Fault) -> None:
        started = time.monotonic()
        wait_until(lambda: fault.is_over(self._cluster), RECOVERY_SECONDS)
        self.recoveries[fault.name].append(round(time.monotonic() - started, 1))


def lost_slots(cluster: Cluster, slots: Sequence[Slot]) -> list[str]:
    """Return what names do not stand for what was acknowledged last."""
    lost = []
    with httpx.Client(base_url=cluster.stack.url, timeout=60) as client:
        for slot in slots:
            headers = {"authorization": f"Bearer {slot.key}"}
            reply = client.get(f"/v1/tasks/by-name/{slot.name}", headers=headers)
            if reply.status_code != 200 or reply.json()["id"] != slot.task_id:
                lost.append(f"{slot.name}: {reply.status_code} {reply.text[:200]}")
    return lost


def create_all(editor: Editor, slots: Sequence[Slot], canaries: Sequence[Canary]) -> None:
    """Point every slot at its first canary."""
    with ThreadPoolExecutor(4) as threads, httpx.Client(timeout=120) as client:
        pairs = zip(slots, canaries, strict=True)
        for done, _ in enumerate(threads.map(lambda pair: editor.put(client, *pair), pairs), 1):
            if done % 100 == 0:
                logger.info("%d of %d tasks", done, len(slots))


def keep_logs(folder: Path) -> None:
    """Copy the logs of all parts to where they stay: something is to be looked into."""
    kept = Path(tempfile.mkdtemp(prefix="loragen-chaos-"))
    for log in folder.rglob("*.log"):
        if log.is_file():
            shutil.copy(log, kept / str(log.relative_to(folder)).replace("/", "-"))
    logger.warning("logs are kept in %s", kept)


def misdirected(folder: Path) -> int:
    """Return how many replies to other requests the gateways found out, by their logs."""
    texts = (log.read_text(errors="replace") for log in folder.rglob("*.log") if log.is_file())
    return sum(text.count(MISDIRECTED) for text in texts)


def run(
    folder: Path, *, tenants: int, tasks: int, faults: int, requests: int, clients: int, seed: int
) -> dict[str, Any]:
    """Run a storm and return its summary."""
    spare = max(20, int(SPARE_SHARE * tasks))
    canaries = CanaryCage(Layout(CHECKPOINT)).draw(tasks + spare)
    logger.info("%d canaries", len(canaries))
    cluster = Cluster(folder)
    try:
        keys = [cluster.create_key(f"tenant-{number}") for number in range(tenants)]
        slots = [
            Slot(f"slot-{number}", f"tenant-{number % tenants}", keys[number % tenants])
            for number in range(tasks)
        ]
        editor = Editor(cluster.gateways, MODEL)
        create_all(editor, slots, canaries[:tasks])
        started = time.monotonic()
        traffic = Traffic(
            cluster.gateways,
            slots,
            foreign=frozenset(canary.answer for canary in canaries),
            model=MODEL,
            clients=clients,
        )
        edits = Edits(editor, slots, canaries[tasks:], seed)
        storm = Storm(cluster, edits)
        chance = random.Random(f"pauses {seed}")
        planned = plan(faults, seed, has_own_disk=cluster.has_own_disk)
        for number, fault in enumerate(planned, 1):
            storm.strike(fault)
            logger.info("%d of %d faults, %s", number, faults, dict(traffic.kinds))
            time.sleep(chance.uniform(1, 6))
        storm.end()
        while traffic.answers < requests:
            time.sleep(1)
        edits.end()
        traffic.end()
        seconds = time.monotonic() - started
        lost = lost_slots(cluster, slots)
    finally:
        cluster.close()
    strayed = misdirected(folder)
    if traffic.details or strayed:
        keep_logs(folder)
    kinds, unexplained = traffic.kinds, storm.unexplained(traffic.broken)
    return {
        **provenance("tests.chaos"),
        "faults": len(planned),
        "requests": kinds.total(),
        "foreign_answers": kinds["foreign answer"],
        "malformed_errors": kinds["malformed"] + len(editor.malformed),
        "tasks_lost": len(lost),
        "recovery_seconds": {name: max(each) for name, each in sorted(storm.recoveries.items())},
        "wrong_answers": kinds["wrong answer"],
        "misdirected_replies": strayed,
        "hung": kinds["hung"],
        "broken_without_a_fault": len(unexplained),
        "kinds": dict(kinds.most_common()),
        "errors": dict(traffic.codes.most_common()),
        "modes": dict(traffic.modes.most_common()),
        "pool_switches": len(cluster.upgrades),
        "tenants": tenants,
        "tasks": tasks,
        "edits": editor.edits,
        "edits_failed": len(edits.failures),
        "faults_by_kind": {name: len(each) for name, each in sorted(storm.recoveries.items())},
        "full_disk": "run" if cluster.has_own_disk else "not run: only root can mount a disk",
        "seconds": round(seconds),
        "details": [*traffic.details, *editor.malformed, *edits.failures, *lost, *unexplained][:50],
    }


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    tenants: Annotated[int, typer.Option(help="Tenants.", min=1)] = 20,
    tasks: Annotated[int, typer.Option(help="Tasks of all tenants.", min=1)] = 1000,
    faults: Annotated[
        int, typer.Option(help="Faults; 23 are one of each kind, and eight worker kills.")
    ] = 50,
    requests: Annotated[int, typer.Option(help="Right answers, at least.")] = 20_000,
    clients: Annotated[int, typer.Option(help="Clients that ask at once.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the order of faults, and of edits.")] = 0,
) -> None:
    """Strike everything, write what came of it, and fail unless nothing was foreign or lost."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for signum in (signal.SIGINT, signal.SIGTERM):  # either ends what was started
        signal.signal(signum, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="lg-") as folder:
        summary = run(
            Path(folder),
            tenants=tenants,
            tasks=tasks,
            faults=faults,
            requests=requests,
            clients=clients,
            seed=seed,
        )
    out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    must_be_zero = (
        *("foreign_answers", "wrong_answers", "malformed_errors", "tasks_lost"),
        *("hung", "broken_without_a_fault"),
    )
    if broken := {name: summary[name] for name in must_be_zero if summary[name]}:
        logger.error("broken: %s", broken)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
