"""`python -m bench.pass_through`: the least that Starlette and httpx can put before a worker.

It reads no body and knows no tenant, task or limit: what it costs is the price of standing there.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import httpx
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

_HEADERS: Final = ("authorization", "content-type")
_STREAM: Final = b'"stream":true'


def main(
    port: Annotated[int, typer.Option(help="Port on loopback.")],
    target: Annotated[str, typer.Option(help="Address of the worker.")],
) -> None:
    """Serve until a signal."""
    uvicorn.run(app(target), host="127.0.0.1", port=port, log_config=None, access_log=False)


def app(target: str) -> Starlette:
    """Return the application before a worker."""
    client = httpx.AsyncClient(base_url=target, timeout=60)

    async def forward(request: Request) -> Response:
        body = await request.body()
        headers = {name: request.headers[name] for name in _HEADERS if name in request.headers}
        sent = client.build_request("POST", request.url.path, content=body, headers=headers)
        is_stream = _STREAM in body
        reply = await client.send(sent, stream=is_stream)
        kind = reply.headers["content-type"]
        if not is_stream:
            return Response(reply.content, reply.status_code, media_type=kind)
        closing = BackgroundTask(reply.aclose)
        return StreamingResponse(
            reply.aiter_raw(), reply.status_code, media_type=kind, background=closing
        )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    route = Route("/v1/chat/completions", forward, methods=["POST"])
    return Starlette(routes=[route], lifespan=lifespan)


if __name__ == "__main__":
    typer.run(main)
