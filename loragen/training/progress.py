"""Progress of long work, told on stderr."""

import logging
import sys
import time
from collections import deque
from typing import Final

_EVERY: Final = 50


def log_progress() -> None:
    """Have this process print progress on stderr."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )


class Progress:
    """Logs the mean loss of the last steps, and the time left.

    A stage that goes on where another process stopped starts at `done` steps.
    """

    def __init__(self, logger: logging.Logger, stage: str, steps: int, *, done: int = 0) -> None:
        self._logger = logger
        self._stage = stage
        self._steps = steps
        self._done = done
        self._started = time.monotonic()
        self._losses: deque[float] = deque(maxlen=_EVERY)

    def add(self, step: int, loss: float, note: str = "") -> None:
        """Note the loss of a step; `note` ends the line."""
        self._losses.append(loss)
        if (step + 1) % _EVERY and step + 1 != self._steps:
            return
        elapsed = time.monotonic() - self._started
        left = elapsed / (step + 1 - self._done) * (self._steps - step - 1)
        mean = sum(self._losses) / len(self._losses)
        self._logger.info(
            "%s: step %d/%d, loss %.3f, %.0f s, %.0f s left%s",
            *(self._stage, step + 1, self._steps, mean, elapsed, left, note),
        )
