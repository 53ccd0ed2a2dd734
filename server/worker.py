"""Worker: one worker as this gateway sees it."""

import logging
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from loragen import metrics
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
    of_tenants: Counter[str] = field(default_factory=Counter)
    """Of the outstanding ones, how many are each tenant's."""
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
            extra = {"worker": self.url, "model": info.edge_model, "backend": info.backend}
            logger.info("worker is healthy", extra=extra)
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
