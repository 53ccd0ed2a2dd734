"""Calls through Serve handles: retries, deadlines, refusals. Needs Ray's classes, starts no Ray."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError, RequestCancelledError

from loragen.errors import (
    DeadlineExceeded,
    EdgeModelNotFound,
    GeneratorUnavailable,
    LoragenError,
    Overloaded,
    PromptTooLong,
    RecipeMismatch,
)
from loragen.wire import CompileReply, CompileRequest, ProbeText, RefineRequest
from router_service import remote
from router_service.remote import RemoteGenerators, RemoteRefiners, mapped

REPLY = CompileReply(
    recipe="r",
    recipe_id="a" * 64,
    pool_id="b" * 64,
    generator_id="c" * 64,
    level=1,
    template_hash="d" * 64,
    compile_seconds=0.0,
)
REQUEST = CompileRequest(edge_model="demo", prompt="x")


class Response:
    """What a handle gives back: awaitable, and cancelled by hand."""

    def __init__(self, result: Callable[[], Any], seconds: float) -> None:
        self._result = result
        self._seconds = seconds
        self.was_cancelled = False

    def __await__(self) -> Any:
        yield from asyncio.sleep(self._seconds).__await__()
        return self._result()

    def cancel(self) -> None:
        self.was_cancelled = True


class Handle:
    """A deployment handle that fails as told, then answers."""

    deployment_name = "generator-fake"

    def __init__(self, *failures: Exception, seconds: float = 0.0) -> None:
        self.responses: list[Response] = []
        self._failures = list(failures)
        self._seconds = seconds

    @property
    def compile(self) -> "Handle":
        return self

    def remote(self, _: CompileRequest) -> Response:
        self.responses.append(Response(self._result, self._seconds))
        return self.responses[-1]

    def _result(self) -> CompileReply:
        if self._failures:
            raise self._failures.pop(0)
        return REPLY


def generators(*handles: Handle, timeout_seconds: float = 5.0) -> RemoteGenerators:
    return RemoteGenerators({"demo": handles}, timeout_seconds=timeout_seconds, max_pending=2)


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RETRY_PAUSE_SECONDS", 0.01)


async def test_a_compile_that_lost_its_actor_is_sent_again() -> None:
    handle = Handle(ActorDiedError(), ActorDiedError())
    assert await generators(handle).compile(REQUEST) == REPLY
    assert len(handle.responses) == 3


async def test_no_actor_until_the_deadline_is_unavailable_with_retry_after() -> None:
    handle = Handle(*[ActorDiedError()] * 1_000)
    with pytest.raises(GeneratorUnavailable) as caught:
        await generators(handle, timeout_seconds=0.1).compile(REQUEST)
    assert caught.value.retry_after == remote.RESTART_SECONDS


async def test_a_slow_compile_ends_at_its_deadline_and_is_cancelled() -> None:
    handle = Handle(seconds=60)
    with pytest.raises(DeadlineExceeded):
        await generators(handle, timeout_seconds=0.05).compile(REQUEST)
    assert handle.responses[0].was_cancelled


async def test_a_caller_that_hangs_up_cancels_its_compile() -> None:
    handle = Handle(seconds=60)
    task = asyncio.create_task(generators(handle).compile(REQUEST))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.responses[0].was_cancelled


async def test_beyond_the_bound_is_refused_at_once_and_room_comes_back() -> None:
    service = generators(Handle(seconds=0.1))
    first = [asyncio.create_task(service.compile(REQUEST)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await service.compile(REQUEST)
    assert caught.value.retry_after == 1.0
    assert await asyncio.gather(*first) == [REPLY, REPLY]
    assert await service.compile(REQUEST) == REPLY


async def test_of_two_generators_the_one_of_the_pool_answers() -> None:
    mismatch = from_actor(RecipeMismatch("another pool"))
    first, second = Handle(mismatch), Handle()
    assert await generators(first, second).compile(REQUEST) == REPLY
    assert [len(each.responses) for each in (first, second)] == [1, 1]
    assert await generators(first, second).compile(REQUEST) == REPLY
    assert [len(each.responses) for each in (first, second)] == [2, 1]
    with pytest.raises(RecipeMismatch):
        await generators(Handle(mismatch), Handle(mismatch)).compile(REQUEST)


async def test_an_unknown_edge_model_is_refused() -> None:
    with pytest.raises(EdgeModelNotFound):
        await generators(Handle()).compile(CompileRequest(edge_model="other", prompt="x"))


async def test_a_refine_without_refiner_is_refused() -> None:
    probes = tuple(ProbeText(input=str(number)) for number in range(8))
    request = RefineRequest(edge_model="other", prompt="x", probes=probes)
    with pytest.raises(EdgeModelNotFound):
        await RemoteRefiners({}, timeout_seconds=5.0, max_pending=2).refine(request)


def from_actor(error: Exception) -> RayTaskError:
    """Return an exception as Ray brings it from another process."""
    raised: RayTaskError = RayTaskError("compile", "traceback", error).as_instanceof_cause()
    return raised


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (from_actor(PromptTooLong("too long", param="prompt")), PromptTooLong),
        (from_actor(RuntimeError("secret")), LoragenError),
        (ActorDiedError(), GeneratorUnavailable),
        (RequestCancelledError(), GeneratorUnavailable),
        (DeploymentUnavailableError.__new__(DeploymentUnavailableError), GeneratorUnavailable),
    ],
)
def test_what_ray_raises_becomes_ours(raised: Exception, becomes: type[LoragenError]) -> None:
    with pytest.raises(LoragenError) as caught, mapped():
        raise raised
    assert type(caught.value) is becomes
    assert "secret" not in str(caught.value)


def test_an_error_from_an_actor_keeps_message_and_field() -> None:
    with pytest.raises(PromptTooLong) as caught, mapped():
        raise from_actor(PromptTooLong("too long", param="prompt"))
    assert (caught.value.message, caught.value.param) == ("too long", "prompt")
