"""The router service over a stub generator, for gateways in other processes."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from loragen.errors import LoragenError
from loragen.wire import (
    CompileReply,
    CompileRequest,
    MeasureReply,
    MeasureRequest,
    RefineReply,
    RefineRequest,
)
from tests.fakes.stub_generator import StubGenerator


def generator_service(generator: StubGenerator) -> Starlette:
    """Return the application; `generator` counts the calls and can hold them."""

    async def compile_prompt(request: Request) -> Response:
        asked = CompileRequest.model_validate_json(await request.body())
        return _reply(asked, await generator.compile(asked))

    async def measure_recipe(request: Request) -> Response:
        asked = MeasureRequest.model_validate_json(await request.body())
        return _reply(asked, await generator.measure(asked))

    async def refine_task(request: Request) -> Response:
        asked = RefineRequest.model_validate_json(await request.body())
        return _reply(asked, await generator.refine(asked))

    async def health(_: Request) -> Response:
        return Response()

    routes = [
        Route("/compile", compile_prompt, methods=["POST"]),
        Route("/measure", measure_recipe, methods=["POST"]),
        Route("/refine", refine_task, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers={LoragenError: _on_own})


def _reply(
    asked: CompileRequest | MeasureRequest | RefineRequest,
    reply: CompileReply | MeasureReply | RefineReply,
) -> Response:
    told = reply.model_copy(update={"request_id": asked.request_id})
    return Response(told.model_dump_json(), media_type="application/json")


async def _on_own(_: Request, error: Exception) -> Response:
    assert isinstance(error, LoragenError)
    return JSONResponse(error.body(), status_code=error.status)
