"""Remote: the actors behind Ray Serve handles, seen as plain calls.

The one boundary where Ray's exceptions become ours. Nothing here does harm twice, so a call that
lost its actor is sent again until the deadline; Serve meanwhile starts another one.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from loragen.errors import (
    DeadlineExceeded,
    EdgeModelNotFound,
    GeneratorUnavailable,
    LoragenError,
    Overloaded,
    RecipeMismatch,
)
from loragen.wire import (
    CompileReply,
    CompileRequest,
    Head,
    MeasureReply,
    MeasureRequest,
    RefineReply,
    RefineRequest,
)

logger = logging.getLogger(__name__)

_Reply = TypeVar("_Reply", CompileReply, MeasureReply, RefineReply)

RETRY_PAUSE_SECONDS: Final = 0.2
RESTART_SECONDS: Final = 5.0
"""About how long Serve takes to start an actor again; told to callers as `retry-after`."""
HEADS_TIMEOUT_SECONDS: Final = 2.0


class Calls:
    """Calls that wait for their actor until a deadline, so many at once per deployment.

    Counts what is under way and refuses beyond `max_pending`. Serve could do that, but its queue
    polls full actors with growing pauses: 300 waiting compiles took 20 s, not 3.
    """

    def __init__(self, doing: str, *, timeout_seconds: float, max_pending: int) -> None:
        """Take what the calls do, for errors."""
        self._doing = doing
        self._timeout_seconds = timeout_seconds
        self._max_pending = max_pending
        self._pending: Counter[str] = Counter()

    async def call(self, deployment: str, send: Callable[[], Any]) -> Any:
        """Return what the deployment's actor answers.

        Raises:
            Overloaded: enough calls wait for it.
            GeneratorUnavailable: no actor answers.
            DeadlineExceeded: it took too long.
        """
        if self._pending[deployment] >= self._max_pending:
            raise Overloaded(f"too many calls are waiting for {self._doing}", retry_after=1.0)
        self._pending[deployment] += 1
        try:
            return await self._call_until_deadline(send)
        finally:
            self._pending[deployment] -= 1

    async def _call_until_deadline(self, send: Callable[[], Any]) -> Any:
        lost = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while True:
                    try:
                        return await _answer(send)
                    except GeneratorUnavailable:
                        logger.warning("call lost its actor, sending it again")
                        lost = True
                        await asyncio.sleep(RETRY_PAUSE_SECONDS)
        except TimeoutError:
            if lost:
                raise _unavailable() from None
            seconds = f"{self._timeout_seconds:g} s"
            raise DeadlineExceeded(f"{self._doing} took longer than {seconds}") from None


async def _first_of_its_pool(
    handles: Sequence[DeploymentHandle], ask: Callable[[DeploymentHandle], Awaitable[_Reply]]
) -> _Reply:
    """Return the answer of the first deployment that holds the pool a request is of.

    Raises:
        RecipeMismatch: none does.
    """
    *others, last = handles
    for handle in others:
        with suppress(RecipeMismatch):
            return await ask(handle)
    return await ask(last)


class RemoteGenerators:
    """The generators in the actors of `handles`, by edge model; of one model, one for each pool."""

    def __init__(
        self,
        handles: Mapping[str, Sequence[DeploymentHandle]],
        *,
        timeout_seconds: float,
        max_pending: int,
    ) -> None:
        self._handles = handles
        self._calls = Calls("compiling", timeout_seconds=timeout_seconds, max_pending=max_pending)

    async def compile(self, request: CompileRequest) -> CompileReply:
        """Compile one prompt; see `router_service.front.Generators` for what it raises."""
        handles = self._handles.get(request.edge_model)
        if handles is None:
            raise EdgeModelNotFound(
                f"no generator compiles for the edge model {request.edge_model!r}",
                param="edge_model",
            )

        async def ask(handle: DeploymentHandle) -> CompileReply:
            reply: CompileReply = await self._calls.call(
                handle.deployment_name, lambda: handle.compile.remote(request)
            )
            return reply

        return await _first_of_its_pool(handles, ask)

    async def heads(self) -> tuple[Head, ...]:
        """Return what the actors compile for.

        Raises:
            GeneratorUnavailable: an actor does not answer.
        """
        # One deployment may serve several edge models: ask each deployment once.
        every = [handle for handles in self._handles.values() for handle in handles]
        deployments = {handle.deployment_name: handle for handle in every}
        try:
            async with asyncio.timeout(HEADS_TIMEOUT_SECONDS):
                with mapped():
                    parts = await asyncio.gather(
                        *(_heads(handle) for handle in deployments.values())
                    )
        except TimeoutError:
            raise _unavailable() from None
        return tuple(head for part in parts for head in part)


class RemoteRefiners:
    """The refiners in the actors of `handles`, by edge model; of one model, one for each pool."""

    def __init__(
        self,
        handles: Mapping[str, Sequence[DeploymentHandle]],
        *,
        timeout_seconds: float,
        max_pending: int,
    ) -> None:
        self._handles = handles
        self._refining = Calls("refining", timeout_seconds=timeout_seconds, max_pending=max_pending)
        self._measuring = Calls(
            "measuring", timeout_seconds=timeout_seconds, max_pending=max_pending
        )

    async def refine(self, request: RefineRequest) -> RefineReply:
        """Refine one task; see `router_service.front.Refiners` for what it raises."""

        async def ask(handle: DeploymentHandle) -> RefineReply:
            reply: RefineReply = await self._refining.call(
                handle.deployment_name, lambda: handle.refine.remote(request)
            )
            return reply

        return await _first_of_its_pool(self._of(request.edge_model), ask)

    async def measure(self, request: MeasureRequest) -> MeasureReply:
        """Measure one recipe; see `router_service.front.Refiners` for what it raises."""

        async def ask(handle: DeploymentHandle) -> MeasureReply:
            reply: MeasureReply = await self._measuring.call(
                handle.deployment_name, lambda: handle.measure.remote(request)
            )
            return reply

        return await _first_of_its_pool(self._of(request.edge_model), ask)

    def _of(self, edge_model: str) -> Sequence[DeploymentHandle]:
        handles = self._handles.get(edge_model)
        if handles is None:
            raise EdgeModelNotFound(
                f"nothing measures or refines for the edge model {edge_model!r}",
                param="edge_model",
            )
        return handles


@contextmanager
def mapped() -> Iterator[None]:
    """Turn what a Ray Serve handle raises into our errors."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, LoragenError):
            raise error.cause from None
        raise LoragenError("the generator failed") from error
    except (RayServeException, RayError) as error:
        raise _unavailable() from error


async def _answer(send: Callable[[], Any]) -> Any:
    with mapped():
        response = send()
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise


async def _heads(handle: DeploymentHandle) -> tuple[Head, ...]:
    heads: tuple[Head, ...] = await handle.heads.remote()
    return heads


def _unavailable() -> GeneratorUnavailable:
    return GeneratorUnavailable("the generator is starting again", retry_after=RESTART_SECONDS)
