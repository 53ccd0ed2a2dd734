"""Entrance: nothing but the paths of operation is reached without a tenant."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from loragen.errors import LoragenError
from server.authentication import Authenticator
from server.http_errors import error_response

OPEN_PATHS: Final = frozenset({"/health", "/ready", "/version", "/metrics"})
"""For probes, balancers and Prometheus, which hold no tenant's key."""


class Entrance:
    """Pure ASGI middleware: finds the tenant before anything of the request is read."""

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        shown = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        try:
            tenant = await self._authenticator.authenticate(shown)
        except LoragenError as error:
            await error_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)
