"""The highest rate that passes, found by trying rates."""

from dataclasses import dataclass, field
from math import sqrt
from typing import Final

_MOST_HALVINGS: Final = 5


@dataclass(slots=True)
class Search:
    """Doubles or halves a guess until a rate passes and a higher one fails, then bisects.

    It takes for granted that whatever passes at a rate passes at lower ones.
    """

    guess: float
    precision: float
    """The search ends when the failed rate is at most so many times the passed one."""
    passed: float | None = field(default=None, init=False)
    """None at the end: even rates far below the guess fail."""
    failed: float | None = field(default=None, init=False)

    @property
    def is_done(self) -> bool:
        """Whether the two rates are close enough, or lower ones are not worth a try."""
        if self.failed is None:
            return False
        if self.passed is None:
            return self.failed <= self.guess / 2**_MOST_HALVINGS
        return self.failed <= self.precision * self.passed

    @property
    def next_rate(self) -> float:
        """The rate to try next."""
        if self.failed is None:
            return self.guess if self.passed is None else 2 * self.passed
        return self.failed / 2 if self.passed is None else sqrt(self.passed * self.failed)

    def tell(self, rate: float, *, has_passed: bool) -> None:
        """Note what came of a rate."""
        if has_passed:
            self.passed = max(rate, self.passed or rate)
        else:
            self.failed = min(rate, self.failed or rate)
