"""Crew: the workers of one edge model, and the line of requests that wait for one of them.

A request goes to the fewer outstanding of two random healthy workers that have room. Where none
has, it waits in line, in turns by tenant; where the line is full, or the wait too long, it is
refused. A worker's own queue stays short that way: requests wait where any worker can take them.

Workers may hold different pools. A request with a recipe goes to those that hold its pool, one
without goes to any.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from config.edge_model import EdgeModelSettings
from loragen import metrics
from loragen.errors import QueueFull, RecipeMismatch, WorkerUnavailable
from loragen.wire import WorkerBackend, WorkerInfo
from server.line import Line
from server.worker import Worker


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work one gateway takes on for one edge model."""

    max_outstanding: int
    """Requests at one worker."""
    max_waiting: int
    """Requests in line."""
    max_wait_seconds: float
    max_of_tenant: int | None = None
    """Requests of one tenant at one worker; None: as many as there may be."""

    @classmethod
    def of(cls, model: EdgeModelSettings) -> Self:
        """Return what is configured for an edge model."""
        return cls(
            max_outstanding=model.max_outstanding or 2 * model.max_num_seqs,
            max_waiting=model.max_waiting,
            max_wait_seconds=model.max_wait_seconds,
            max_of_tenant=model.max_outstanding_of_tenant,
        )


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request in line; its turn comes with a worker, or ends with an error."""

    tried: Collection[str]
    pool_id: str | None
    tenant: str
    turn: asyncio.Future[Worker] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Crew:
    """The workers of one edge model."""

    def __init__(
        self,
        model: str,
        urls: Iterable[str],
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.workers = [Worker(url) for url in urls]
        self._limits = limits
        self._clock = clock
        self._line: Line[_Waiter] = Line()
        self._waiting = metrics.QUEUE_REQUESTS.labels(model)  # in the metrics before one waits

    @property
    def healthy(self) -> list[Worker]:
        """The workers that answered their last probe and every request since.

        Those in exile are among them only where no other is.
        """
        return self._preferred(self._answering())

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools that workers hold which answer, by id."""
        held = (worker.pool_id for worker in self._answering())
        return tuple(sorted({pool_id for pool_id in held if pool_id is not None}))

    @property
    def backends(self) -> Counter[WorkerBackend]:
        """How many workers that answer mix recipes by each backend."""
        infos = (worker.info for worker in self._answering())
        return Counter(info.backend for info in infos if info is not None)

    def admit(self, worker: Worker, info: WorkerInfo) -> None:
        """Take a worker for healthy."""
        worker.admit(info, now=self._clock())
        self._serve_line()

    def lose(self, worker: Worker, why: str) -> None:
        """Take a worker for ill until a probe says otherwise."""
        worker.lose(why, now=self._clock())
        self._serve_line()

    def relist(self, urls: Iterable[str]) -> None:
        """Take the workers at these addresses, and no longer those at others."""
        known = {worker.url: worker for worker in self.workers}
        self.workers = [known.pop(url, Worker(url)) for url in urls]
        for worker in known.values():
            worker.unlist()
        self._serve_line()

    def any(self, tried: Collection[str] = ()) -> Worker:
        """Return a worker for a question that costs it nothing.

        Raises:
            WorkerUnavailable: all healthy ones were tried.
        """
        return _less_busy(self._untried(tried))

    @asynccontextmanager
    async def worker(
        self, tried: Collection[str] = (), *, pool_id: str | None = None, tenant: str = ""
    ) -> AsyncIterator[Worker]:
        """Hold a place at a worker that is not among the tried ones, for the length of the block.

        With `pool_id` at one that holds this pool.

        Raises:
            WorkerUnavailable: all healthy ones were tried.
            RecipeMismatch: all that hold the pool were tried, or none does.
            QueueFull: none has room, and the line is full or did not move in time.
        """
        request = _Waiter(tried, pool_id, tenant)
        worker = None if self._is_line_for(pool_id) else self._take(request)
        if worker is None:
            worker = await self._wait(request)
        try:
            yield worker
        finally:
            self._give_back(worker, tenant)

    async def _wait(self, waiter: _Waiter) -> Worker:
        self._untried(waiter.tried, waiter.pool_id)
        if len(self._line) >= self._limits.max_waiting:
            self._make_room(waiter.tenant)
        self._line.join(waiter.tenant, waiter)
        self._serve_line()  # those before it may be waiting for other workers than it can take
        self._waiting.inc()
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._limits.max_wait_seconds):
                worker = await waiter.turn
        except BaseException as error:
            self._leave(waiter)
            if isinstance(error, TimeoutError):
                raise self._refusal("waited too long for one") from error
            raise
        finally:
            self._waiting.dec()
        metrics.QUEUE_SECONDS.labels(self.model).observe(time.monotonic() - started)
        return worker

    def _leave(self, waiter: _Waiter) -> None:
        """Take a waiter out of line; a worker that it was given meanwhile goes to the next."""
        self._line.leave(waiter.tenant, waiter)
        turn = waiter.turn
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._give_back(turn.result(), waiter.tenant)

    def _make_room(self, tenant: str) -> None:
        """Let the last of who has most in line leave it for another of a tenant.

        Raises:
            QueueFull: that is the tenant itself.
        """
        refusal = self._refusal("the line for it is full")
        excess = self._line.in_excess(tenant)
        if excess is None:
            raise refusal
        self._line.leave(*excess)
        if not excess[1].turn.done():  # else it is leaving
            excess[1].turn.set_exception(refusal)

    def _refusal(self, why: str) -> QueueFull:
        metrics.LIMITS_REJECTED.labels("queue").inc()
        message = f"all workers of model {self.model!r} are busy: {why}; try again"
        return QueueFull(message, retry_after=1.0)

    def _serve_line(self) -> None:
        """Give every waiter its turn for whom there is a worker, or will be none."""
        full: set[tuple[str, str | None]] = set()
        for tenant, waiter in self._line:
            if waiter.turn.done() or ((tenant, waiter.pool_id) in full and not waiter.tried):
                continue
            try:
                worker = self._take(waiter)
            except (WorkerUnavailable, RecipeMismatch) as error:
                self._line.leave(tenant, waiter)
                waiter.turn.set_exception(error)
                continue
            if worker is not None:
                self._line.serve(tenant, waiter)
                waiter.turn.set_result(worker)
            elif not waiter.tried:
                full.add((tenant, waiter.pool_id))

    def _is_line_for(self, pool_id: str | None) -> bool:
        """Whether somebody waits who could take what a newcomer would."""
        return any(pool_id is None or each.pool_id in (None, pool_id) for _, each in self._line)

    def _take(self, request: _Waiter) -> Worker | None:
        untried = self._untried(request.tried, request.pool_id)
        free = [worker for worker in untried if self._has_room(worker, request.tenant)]
        if not free:
            return None
        worker = _less_busy(free)
        worker.outstanding += 1
        worker.of_tenants[request.tenant] += 1
        metrics.WORKER_REQUESTS_INFLIGHT.labels(worker.url).inc()
        return worker

    def _has_room(self, worker: Worker, tenant: str) -> bool:
        most = self._limits.max_of_tenant
        own = worker.of_tenants[tenant] if most is not None else 0
        return worker.outstanding < self._limits.max_outstanding and (most is None or own < most)

    def _give_back(self, worker: Worker, tenant: str) -> None:
        worker.outstanding -= 1
        worker.of_tenants[tenant] -= 1
        if not worker.of_tenants[tenant]:
            del worker.of_tenants[tenant]
        metrics.WORKER_REQUESTS_INFLIGHT.labels(worker.url).dec()
        worker.forget_series()
        self._serve_line()

    def _untried(self, tried: Collection[str], pool_id: str | None = None) -> list[Worker]:
        answering = self._answering()
        fitting = [each for each in answering if pool_id is None or each.pool_id == pool_id]
        untried = [worker for worker in self._preferred(fitting) if worker.url not in tried]
        if untried:
            return untried
        if answering and pool_id is not None:
            raise RecipeMismatch(f"no worker of model {self.model!r} takes the recipe")
        raise WorkerUnavailable(
            f"no worker of model {self.model!r} answers; try again", retry_after=1.0
        )

    def _answering(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.info is not None]

    def _preferred(self, answering: list[Worker]) -> list[Worker]:
        now = self._clock()
        return [worker for worker in answering if now >= worker.exiled_until] or answering


def _less_busy(workers: list[Worker]) -> Worker:
    if len(workers) == 1:
        return workers[0]
    two = random.sample(workers, min(2, len(workers)))
    return min(two, key=lambda worker: worker.outstanding)
