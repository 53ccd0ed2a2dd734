"""Crew: the workers of one edge model, and the line of requests that wait for one of them.

A request goes to the fewer outstanding of two random healthy workers that have room. Where none
has, it waits in line, first come first served; where the line is full, or the wait too long, it is
refused. A worker's own queue stays short that way: requests wait where any worker can take them.
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
from loragen.errors import QueueFull, WorkerUnavailable
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
        answering = [worker for worker in self.workers if worker.info is not None]
        now = self._clock()
        return [worker for worker in answering if now >= worker.exiled_until] or answering

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
    async def worker(self, tried: Collection[str] = ()) -> AsyncIterator[Worker]:
        """Hold a place at a worker that is not among the tried ones, for the length of the block.

        Raises:
            WorkerUnavailable: all healthy ones were tried.
            QueueFull: none has room, and the line is full or did not move in time.
        """
        worker = None if self._line else self._take(tried)
        if worker is None:
            worker = await self._wait(tried)
        try:
            yield worker
        finally:
            self._give_back(worker)

    async def _wait(self, tried: Collection[str]) -> Worker:
        self._untried(tried)
        if len(self._line) >= self._limits.max_waiting:
            raise self._refusal("the line for it is full")
        waiter = _Waiter(tried)
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
        for waiter in list(self._line):
            if waiter.turn.done():
                continue
            try:
                worker = self._take(waiter.tried)
            except WorkerUnavailable as error:
                del self._line[waiter]
                waiter.turn.set_exception(error)
                continue
            if worker is not None:
                del self._line[waiter]
                waiter.turn.set_result(worker)
            elif not waiter.tried:
                return  # no worker has room for anyone

    def _take(self, tried: Collection[str]) -> Worker | None:
        room = self._limits.max_outstanding
        free = [worker for worker in self._untried(tried) if worker.outstanding < room]
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

    def _untried(self, tried: Collection[str]) -> list[Worker]:
        untried = [worker for worker in self.healthy if worker.url not in tried]
        if not untried:
            raise WorkerUnavailable(
                f"no worker of model {self.model!r} answers; try again", retry_after=1.0
            )
        return untried


def _less_busy(workers: list[Worker]) -> Worker:
    two = random.sample(workers, min(2, len(workers)))
    return min(two, key=lambda worker: worker.outstanding)
