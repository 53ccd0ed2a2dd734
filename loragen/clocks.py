"""Clocks: what tenants have had of the workers, so that who has had least is served first.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) over tokens, which is what a virtual
token counter counts (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024,
arXiv:2401.00588). Each edge model has one virtual time, the least tag of the requests that run or
wait, and each of its tenants a clock:

    tag of a request  = max(clock of its tenant, virtual time)
    clock             = tag + what the request costs: guessed when it comes, put right when it ends

A lower tag goes first. Tenants that always have requests waiting get equal shares; one that comes
back is lifted to the virtual time, so that time spent away is no credit. A request costs a token
for each of its prompt that was not cached and two for each generated, the weights of that paper.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

GENERATED_WEIGHT: Final = 2
EXPECTED_TOKENS: Final = 64
"""What a request is expected to generate of a tenant of whom nothing is known."""
MEMORY: Final = 8
"""Requests over which the mean of what a tenant's generate is taken."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a request costs a worker, in tokens; before it ran, the most that it may generate."""

    prompt_tokens: int
    generated_tokens: int

    @property
    def cost(self) -> int:
        """All of it, in tokens of a prompt."""
        return self.prompt_tokens + GENERATED_WEIGHT * self.generated_tokens


@dataclass(frozen=True, slots=True)
class Place:
    """A request among all others of its edge model."""

    tenant: str
    model: str
    request: str
    tag: int
    """A lower one goes first."""
    charged: int
    """What its tenant's clock was advanced by."""
    now: int
    """The virtual time when it came."""


class Clocks(Protocol):
    """The clocks of all tenants. Every method raises StoreUnavailable."""

    async def start(self, tenant: str, model: str, request: str, work: Work) -> Place:
        """Give a request its place and charge its tenant what it will probably cost."""

    async def settle(self, place: Place, work: Work | None) -> None:
        """End a request and charge what it cost; where nobody knows, the guess stays.

        One that has ended already, or counts no longer, changes nothing.
        """

    async def renew(self, places: Collection[Place]) -> None:
        """Say that requests still run or wait; what is not said to for long holds back no time."""
