"""Faults: what can go wrong with a part, how long it lasts, and when all is well again."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.chaos.cluster import WORKERS, Cluster

_HOLD_SECONDS: Final = 6.0
_STALL_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    name: str
    strike: Callable[[Cluster], None]
    """Does it, and ends what has to be ended by hand."""
    is_over: Callable[[Cluster], bool]
    hits_worker: bool = False
    gateway: int | None = None
    """Which gateway it takes down."""
    loses_unsaved: bool = False
    """Whether Redis may forget what it has not written yet."""


def _kill(name: str) -> Callable[[Cluster], None]:
    return lambda cluster: _discard(cluster.stack.kill(name))


def _discard(_: int) -> None:
    return None


def _end_worker(cluster: Cluster) -> None:
    os.kill(cluster.pid(WORKERS[0]), signal.SIGTERM)


def _stall(name: str) -> Callable[[Cluster], None]:
    def strike(cluster: Cluster) -> None:
        with cluster.stalled(name):
            time.sleep(_STALL_SECONDS)

    return strike


def _kill_beside(cluster: Cluster) -> None:
    cluster.beside.process.kill()
    cluster.restart_beside()


def _end_beside(cluster: Cluster) -> None:
    cluster.beside.signal(signal.SIGTERM)
    cluster.restart_beside()


def _full_memory(cluster: Cluster) -> None:
    client = cluster.redis()
    before = str(client.config_get("maxmemory")["maxmemory"])
    client.config_set("maxmemory", 1_000_000)
    time.sleep(_HOLD_SECONDS)
    client.config_set("maxmemory", before)


def _read_only(cluster: Cluster) -> None:
    client = cluster.redis()
    client.replicaof("127.0.0.1", 1)  # nobody is there, so nothing is copied and all is kept
    time.sleep(_HOLD_SECONDS)
    client.replicaof("NO", "ONE")


def _full_disk(cluster: Cluster) -> None:
    filler = cluster.redis_folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * (1 << 20)):
                pass
        except OSError:
            pass
    time.sleep(_HOLD_SECONDS)
    filler.unlink()


def _evict_recipes(cluster: Cluster) -> None:
    client = cluster.redis()
    for key in client.scan_iter("*:recipe:*", count=1000):
        client.delete(key)


def _upgrade_and_roll_back(cluster: Cluster) -> None:
    cluster.upgrade()
    time.sleep(_HOLD_SECONDS)
    cluster.roll_back()


FAULTS: Final = (
    Fault("worker_kill", _kill(WORKERS[0]), Cluster.are_workers_healthy, hits_worker=True),
    Fault("second_worker_kill", _kill(WORKERS[1]), Cluster.are_workers_healthy, hits_worker=True),
    Fault("worker_end", _end_worker, Cluster.are_workers_healthy, hits_worker=True),
    Fault("worker_stall", _stall(WORKERS[1]), Cluster.are_workers_healthy, hits_worker=True),
    Fault("gateway_kill", _kill("server"), Cluster.are_gateways_ready, gateway=0),
    Fault("second_gateway_kill", _kill_beside, Cluster.are_gateways_ready, gateway=1),
    Fault("second_gateway_end", _end_beside, Cluster.are_gateways_ready, gateway=1),
    Fault("generator_kill", _kill("router_service"), Cluster.is_generator_healthy),
    Fault("generator_stall", _stall("router_service"), Cluster.is_generator_healthy),
    Fault("redis_kill", _kill("redis"), Cluster.is_redis_writable, loses_unsaved=True),
    Fault("redis_stall", _stall("redis"), Cluster.is_redis_writable),
    Fault("redis_full_memory", _full_memory, Cluster.is_redis_writable),
    Fault("redis_read_only", _read_only, Cluster.is_redis_writable),
    Fault("redis_full_disk", _full_disk, Cluster.is_redis_writable),
    Fault("recipes_evicted", _evict_recipes, Cluster.is_redis_writable),
    Fault("pool_upgrade", Cluster.upgrade, Cluster.is_upgraded),
    Fault("pool_rollback", _upgrade_and_roll_back, Cluster.is_upgraded),
)
