"""The service's contracts over the front in this process, with fakes that compile and refine."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from loragen.errors import EdgeModelNotFound, GeneratorUnavailable, LoragenError, Overloaded
from loragen.wire import (
    CompileReply,
    CompileRequest,
    Head,
    MeasureReply,
    MeasureRequest,
    RefineReply,
    RefineRequest,
)
from router_service.front import Front
from router_service.generator_actor import GeneratorActor
from router_service.refiner_actor import RefinerActor
from tests.contract.generator_contract import (
    EDGE_MODEL,
    MAX_BODY_BYTES,
    SECRET,
    GeneratorContract,
    compile_prompt,
)
from tests.contract.refiner_contract import RefinerContract
from tests.fakes.fake_generator import FakeGenerator
from tests.fakes.fake_refiner import FakeRefiner


class InProcess:
    """The actors' classes without Ray."""

    def __init__(self) -> None:
        self._actor = GeneratorActor({EDGE_MODEL: Path()}, FakeGenerator.load)
        self._refiner = RefinerActor(EDGE_MODEL, FakeRefiner)
        self.failure: Exception | None = None

    async def compile(self, request: CompileRequest) -> CompileReply:
        if self.failure is not None:
            raise self.failure
        # One batch at a time, as serve.batch does it.
        outcome = self._actor._compile_all([request])[0]
        if isinstance(outcome, LoragenError):
            raise outcome
        return outcome

    async def refine(self, request: RefineRequest) -> RefineReply:
        if request.edge_model != EDGE_MODEL:
            raise EdgeModelNotFound("nothing refines for it")
        (outcome,) = self._refiner._refine_all([request])
        if isinstance(outcome, LoragenError):
            raise outcome
        return outcome

    async def measure(self, request: MeasureRequest) -> MeasureReply:
        if request.edge_model != EDGE_MODEL:
            raise EdgeModelNotFound("nothing measures for it")
        return self._refiner._measure(request)

    async def heads(self) -> tuple[Head, ...]:
        if self.failure is not None:
            raise self.failure
        return await self._actor.heads()


@pytest.fixture
def generators() -> InProcess:
    return InProcess()


@pytest.fixture
async def client(generators: InProcess) -> AsyncIterator[httpx.AsyncClient]:
    app = Front(generators, generators, secret=SECRET, max_body_bytes=MAX_BODY_BYTES).create()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
        yield client


class TestFrontRefining(RefinerContract):
    """The contract of refining."""


class TestFront(GeneratorContract):
    async def test_overload_says_when_to_come_back(
        self, client: httpx.AsyncClient, generators: InProcess
    ) -> None:
        generators.failure = Overloaded("full", retry_after=1.4)
        response = await compile_prompt(client, "x")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["error"]["code"] == "overloaded"

    async def test_health_fails_while_an_actor_is_away(
        self, client: httpx.AsyncClient, generators: InProcess
    ) -> None:
        generators.failure = GeneratorUnavailable("starting", retry_after=5)
        response = await client.get("/health")
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")

    async def test_what_nobody_expected_is_a_500_without_details(
        self, client: httpx.AsyncClient, generators: InProcess
    ) -> None:
        generators.failure = RuntimeError("the secret prompt")
        response = await compile_prompt(client, "x")
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "internal_error"
        assert "secret" not in response.text

    async def test_a_body_without_length_is_bounded_too(self, client: httpx.AsyncClient) -> None:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(MAX_BODY_BYTES // 512 + 1):
                yield b"x" * 512

        headers = {"authorization": f"Bearer {SECRET}"}
        response = await client.post("/compile", content=parts(), headers=headers)
        assert response.status_code == 413
