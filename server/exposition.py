"""Exposition: the metrics in Prometheus' text format, on the API port or on their own."""

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest, start_http_server

router = APIRouter()


@router.get(
    "/metrics",
    tags=["operation"],
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
)
async def metrics() -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def serve_metrics(host: str, port: int) -> None:
    """Serve the metrics, and nothing else, on a port of their own until the process ends."""
    start_http_server(port, addr=host)
