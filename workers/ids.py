"""Recipe ids: the numbers vLLM knows recipes by (`lora_int_id`).

vLLM tells requests apart by name but tokens by number: two numbers for one name break its worker,
one number for two names would answer with another tenant's task. So a number is leased for as
long as a request uses it, and only a name long unused gives its number to another. Numbers stay
below step * (keep + requests in flight): far from the int32 that vLLM keeps them in.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count


@dataclass(slots=True)
class _Lease:
    number: int
    holders: int = 0


class RecipeIds:
    """Numbers by recipe name; remembers `keep` idle ones, so that a hot recipe keeps its slot."""

    def __init__(self, *, first: int = 1, step: int = 1, keep: int = 16_384) -> None:
        """Several API processes share an engine: each takes every `step`-th number."""
        self._fresh = count(first, step)
        self._keep = keep
        self._leases: dict[str, _Lease] = {}
        self._idle: OrderedDict[str, int] = OrderedDict()  # longest idle first

    @contextmanager
    def lease(self, name: str) -> Iterator[int]:
        """Hold the number of a recipe."""
        lease = self._leases.get(name)
        if lease is None:
            lease = self._leases[name] = _Lease(self._take(name))
        lease.holders += 1
        try:
            yield lease.number
        finally:
            lease.holders -= 1
            if lease.holders == 0:
                del self._leases[name]
                self._idle[name] = lease.number

    def _take(self, name: str) -> int:
        if name in self._idle:
            return self._idle.pop(name)
        if len(self._idle) >= self._keep:
            return self._idle.popitem(last=False)[1]
        return next(self._fresh)
