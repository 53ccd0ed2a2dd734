"""Auto mode never fails a request: what it cannot find out is a reason to use the prompt."""

from collections.abc import Awaitable, Callable

import httpx
import pytest

from config.settings import AutoSettings
from loragen.errors import LimitExceeded
from loragen.keys import TenantKeys
from loragen.limits import excess
from loragen.sightings import Budget
from loragen.task import FallbackReason
from server.auto import Auto
from server.dispatch import Dispatcher
from server.identity import Identity
from server.memory import Resolved
from tests.contract.store_contract import TENANT
from tests.fakes.memory_sightings import MemorySightings
from tests.fakes.resolving import Bench
from tests.fakes.shared_state import shared_state

PROMPT = "You are Ada. " * 4


async def unlimited(tenant: str) -> None:
    """Let every compile be."""


def identity(bench: Bench) -> Identity:
    return Identity(bench.store, lambda tenant: TenantKeys((bytes(32),), tenant))


def auto(
    sightings: MemorySightings,
    bench: Bench,
    take_compile: Callable[[str], Awaitable[None]] = unlimited,
) -> Auto:
    """Return auto mode for a model whose workers are all away."""
    return Auto(
        shared_state(bench.store, sightings=sightings),
        bench.resolver,
        Dispatcher({}, httpx.AsyncClient(), patience_seconds=1),
        identity(bench),
        compiled={"demo"},
        measured=(),
        max_prompt_bytes=1_000,
        settings=AutoSettings(min_prompt_tokens=8),
        take_compile=take_compile,
    )


async def reasons(
    mode: Auto, prompt: str = PROMPT, *, model: str = "demo", times: int = 1
) -> list[Resolved | FallbackReason]:
    return [await mode.resolve(TENANT, model, prompt, wait=False) for _ in range(times)]


@pytest.fixture
def sightings() -> MemorySightings:
    return MemorySightings(budget=Budget(tasks=1, seconds=60))


async def test_a_prompt_that_nobody_can_count_is_tried_again(sightings: MemorySightings) -> None:
    found = await reasons(auto(sightings, Bench()), times=3)
    assert found == ["first_sighting", "compile_failed", "compile_failed"]


async def test_what_was_counted_is_not_counted_again(sightings: MemorySightings) -> None:
    mode = auto(sightings, bench := Bench())
    assert await reasons(mode) == ["first_sighting"]
    await sightings.measure(TENANT, identity(bench).ids(TENANT, "demo", PROMPT)[0], 99)
    (found,) = await reasons(mode)  # although no worker could count
    assert isinstance(found, Resolved)
    assert found.task.is_implicit
    await bench.settle()
    (found,) = await reasons(mode)
    assert isinstance(found, Resolved)
    assert found.recipe is not None
    assert bench.compiles == 1


@pytest.mark.parametrize(
    ("prompt", "model", "reason"),
    [
        ("x" * 1_001, "demo", "prompt_too_long"),
        ("x" * 7, "demo", "prompt_too_short"),
        (PROMPT, "plain", "no_generator"),
    ],
)
async def test_a_hopeless_prompt_is_not_even_looked_up(
    sightings: MemorySightings, prompt: str, model: str, reason: str
) -> None:
    sightings.is_away = True
    bench = Bench()
    bench.store.is_away = True
    assert await reasons(auto(sightings, bench), prompt, model=model) == [reason]


@pytest.mark.parametrize("part", ["store", "sightings"])
async def test_without_redis_the_prompt_serves(sightings: MemorySightings, part: str) -> None:
    bench = Bench()
    bench.store.is_away = part == "store"
    sightings.is_away = part == "sightings"
    assert await reasons(auto(sightings, bench)) == ["store_unavailable"]


async def test_without_a_compile_left_the_prompt_stays_in_context(
    sightings: MemorySightings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def counted(*_: object) -> int:
        return 100

    monkeypatch.setattr("server.auto.count_prompt_tokens", counted)

    async def none_left(tenant: str) -> None:
        raise excess("compiles", 1)

    mode = auto(sightings, bench := Bench(), none_left)
    task_id = identity(bench).ids(TENANT, "demo", PROMPT)[0]
    await mode.resolve(TENANT, "demo", PROMPT, wait=False)
    await sightings.measure(TENANT, task_id, 100)
    assert await mode.resolve(TENANT, "demo", PROMPT, wait=False) == "budget_spent"
    assert await bench.store.get(TENANT, task_id) is None
    with pytest.raises(LimitExceeded):
        await mode._compile(TENANT, "demo", PROMPT, ())
