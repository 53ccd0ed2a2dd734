"""Crew: the workers of one edge model, and the line of requests that wait for one of them.

A request goes to the fewer outstanding of two random healthy workers that have room. Where none
has, it waits in line, first come first served; where the line is full, or the wait too long, it is
refused. A worker's own queue stays short that way: requests wait where any worker can take them.

Workers may hold different pools. A request with a recipe goes to those that hold its pool, one
without goes to any.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from loragen import metrics
from loragen.errors import QueueFull, RecipeMismatch, WorkerUnavailable
from loragen.wire import WorkerInfo

logger = logging.getLogger(__name__)

STEADY_SECONDS: Final = 30.0
"""A worker that was healthy this long has no past."""
FIRST_EXILE_SECONDS: Final = 1.0
LONGEST_EXILE_SECONDS: Final = 30.0


@dataclass(slots=True, eq=False)
class Worker:
    """One worker as this gateway sees it; `info` is None while it is not healthy.

    One that is lost soon after it came back is left alone for 1, 2, 4 .. 30 seconds. `listed`
    ends when its service lists it no longer; what it is answering it answers still.
    """

    url: str
    outstanding: int = 0
    info: WorkerInfo | None = None
    listed: bool = True
    watched: bool = False
    healthy_since: float = 0.0
    exile_seconds: float = 0.0
    exiled_until: float = 0.0

    @property
    def pool_id(self) -> str | None:
        """The pool it holds; None where it has none, or is not healthy."""
        return None if self.info is None else self.info.pool_id

    def lose(self, why: str, *, now: float) -> None:
        """Take it for ill."""
        if self.info is None:
            return
        logger.warning("worker is not healthy", extra={"worker": self.url, "why": why})
        self.info = None
        if now - self.healthy_since > STEADY_SECONDS:
            self.exile_seconds = 0.0
        self.exiled_until = now + self.exile_seconds
        longer = max(FIRST_EXILE_SECONDS, 2 * self.exile_seconds)
        self.exile_seconds = min(longer, LONGEST_EXILE_SECONDS)

    def admit(self, info: WorkerInfo, *, now: float) -> None:
        """Take it for healthy."""
        if self.info is None:
            logger.info("worker is healthy", extra={"worker": self.url, "model": info.edge_model})
            self.healthy_since = max(now, self.exiled_until)
        self.info = info

    def unlist(self) -> None:
        """Take no more requests."""
        self.listed, self.info = False, None
        self.forget_series()

    def forget_series(self) -> None:
        """Drop the series of a worker that is gone for good."""
        # Addresses come and go with pods: without this their series would pile up.
        if not self.listed and self.outstanding == 0:
            with suppress(KeyError):  # it never had a request
                metrics.WORKER_REQUESTS_INFLIGHT.remove(self.url)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much work one gateway takes on for one edge model."""

    max_outstanding: int
    """Requests at one worker."""
    max_waiting: int
    """Requests in line."""
    max_wait_seconds: float


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request in line; its turn comes with a worker, or ends with an error."""

    tried: Collection[str]
    pool_id: str | None
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
        self._line: dict[_Waiter, None] = {}
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
        self, tried: Collection[str] = (), *, pool_id: str | None = None
    ) -> AsyncIterator[Worker]:
        """Hold a place at a worker that is not among the tried ones, for the length of the block.

        With `pool_id` at one that holds this pool.

        Raises:
            WorkerUnavailable: all healthy ones were tried.
            RecipeMismatch: all that hold the pool were tried, or none does.
            QueueFull: none has room, and the line is full or did not move in time.
        """
        worker = None if self._is_line_for(pool_id) else self._take(tried, pool_id)
        if worker is None:
            worker = await self._wait(tried, pool_id)
        try:
            yield worker
        finally:
            self._give_back(worker)

    async def _wait(self, tried: Collection[str], pool_id: str | None) -> Worker:
        self._untried(tried, pool_id)
        if len(self._line) >= self._limits.max_waiting:
            raise self._refusal("the line for it is full")
        waiter = _Waiter(tried, pool_id)
        self._line[waiter] = None
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
        self._line.pop(waiter, None)
        turn = waiter.turn
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._give_back(turn.result())

    def _refusal(self, why: str) -> QueueFull:
        metrics.LIMITS_REJECTED.labels("queue").inc()
        message = f"all workers of model {self.model!r} are busy: {why}; try again"
        return QueueFull(message, retry_after=1.0)

    def _serve_line(self) -> None:
        """Give every waiter its turn for whom there is a worker, or will be none."""
        full: set[str | None] = set()
        for waiter in list(self._line):
            if waiter.turn.done() or (waiter.pool_id in full and not waiter.tried):
                continue
            try:
                worker = self._take(waiter.tried, waiter.pool_id)
            except (WorkerUnavailable, RecipeMismatch) as error:
                del self._line[waiter]
                waiter.turn.set_exception(error)
                continue
            if worker is not None:
                del self._line[waiter]
                waiter.turn.set_result(worker)
            elif waiter.tried:
                continue
            elif waiter.pool_id is None:
                return  # no worker has room for anyone
            else:
                full.add(waiter.pool_id)

    def _is_line_for(self, pool_id: str | None) -> bool:
        """Whether somebody waits who could take what a newcomer would."""
        return any(pool_id is None or each.pool_id in (None, pool_id) for each in self._line)

    def _take(self, tried: Collection[str], pool_id: str | None) -> Worker | None:
        room = self._limits.max_outstanding
        free = [worker for worker in self._untried(tried, pool_id) if worker.outstanding < room]
        if not free:
            return None
        worker = _less_busy(free)
        worker.outstanding += 1
        metrics.WORKER_REQUESTS_INFLIGHT.labels(worker.url).inc()
        return worker

    def _give_back(self, worker: Worker) -> None:
        worker.outstanding -= 1
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
    two = random.sample(workers, min(2, len(workers)))
    return min(two, key=lambda worker: worker.outstanding)
