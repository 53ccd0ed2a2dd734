"""What request handlers work with, wired once in `server.app`.

What they get it by is asynchronous although nothing is waited for: FastAPI calls plain functions in
a thread, which costs more than all they do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import Request

from config.settings import ServerSettings
from loragen.drain import Drain
from loragen.keys import TenantKeys
from loragen.names import Names
from loragen.sightings import Sightings
from loragen.store import Store
from loragen.tenants import Tenant
from loragen.usage import Usage
from server.auto import Auto
from server.conversation import ConversationRule
from server.dispatch import Dispatcher
from server.gatekeeper import Gatekeeper
from server.identity import Identity
from server.measuring import Measuring
from server.name_memory import NameMemory
from server.pools import Pools
from server.precedence import Precedence
from server.refinement import Refinement
from server.resolve import Resolver
from server.standing import Standing
from server.usage_meter import UsageMeter
from server.visit import Visit


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the gateway."""

    settings: ServerSettings
    store: Store
    names: Names
    name_memory: NameMemory
    pools: Pools
    resolver: Resolver
    standing: Standing
    measuring: Measuring
    refinement: Refinement
    dispatcher: Dispatcher
    keys: Callable[[str], TenantKeys]
    identity: Identity
    drain: Drain
    without_recipes: frozenset[str]
    """Edge models for which the operator forces prompt mode."""
    auto: Auto
    conversations: ConversationRule
    switch: Literal["next_conversation", "now"]
    sightings: Sightings
    tenant: Callable[[str], Tenant]
    """The record of a tenant whose request was let in."""
    gatekeeper: Gatekeeper
    precedence: Precedence
    usage: Usage
    usage_meter: UsageMeter

    def forces_prompt(self, owner: str, model: str) -> bool:
        """Whether the operator forces prompt mode for an edge model, or for a tenant."""
        return model in self.without_recipes or self.tenant(owner).force_prompt

    def max_prompt_bytes(self, owner: str) -> int:
        """Return how large a prompt of a tenant may be."""
        own = self.tenant(owner).limits.prompt_bytes
        most = self.settings.max_prompt_bytes
        return most if own is None else min(own, most)


async def services(request: Request) -> Services:
    """Return the services of the application that handles the request."""
    held: Services = request.app.state.services
    return held


async def tenant(request: Request) -> str:
    """Return the id of the tenant a request is of."""
    return (await visit(request)).tenant.id


async def visit(request: Request) -> Visit:
    """Return the request as `server.entrance` let it in."""
    found: Visit = request.state.visit
    return found
