"""Entrance: nothing but the paths of operation is reached without a tenant."""

import logging
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from loragen import metrics
from loragen.errors import LoragenError
from server.authentication import Authenticator
from server.gatekeeper import Gatekeeper
from server.http_errors import error_response
from server.precedence import Precedence
from server.shadow import Shadow
from server.usage_meter import UsageMeter
from server.visit import Visit

logger = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset({"/health", "/ready", "/version", "/metrics"})
"""For probes, balancers and Prometheus, which hold no tenant's key."""


class Entrance:
    """Pure ASGI middleware: finds the tenant, and counts, before anything else is read."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        gatekeeper: Gatekeeper,
        meter: UsageMeter,
        precedence: Precedence,
        shadow: Shadow,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._gatekeeper = gatekeeper
        self._meter = meter
        self._precedence = precedence
        self._shadow = shadow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        shown = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        try:
            tenant = await self._authenticator.authenticate(shown)
            visit = await Visit.begin(tenant, self._gatekeeper)
        except LoragenError as error:
            await error_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["visit"] = visit
        sending = visit.sending(send)
        try:
            if visit.refused is not None:
                await error_response(visit.refused)(scope, receive, sending)
            else:
                await self._app(scope, receive, sending)
        finally:
            self._meter.count(visit)
            if visit.tally.is_unstripped:
                _report_unstripped(visit)
            try:
                await visit.leave()
            finally:
                await self._precedence.leave(visit)
            if visit.live is not None:  # the answer is over: nobody waits for this
                self._shadow.take(*visit.live)


def _report_unstripped(visit: Visit) -> None:
    assert visit.tally.served is not None
    model, provenance = visit.tally.served
    metrics.PROMPTS_UNSTRIPPED.labels(model).inc()
    logger.warning(
        "prompt not stripped", extra={"edge_model": model, "task_id": provenance.task_id}
    )
