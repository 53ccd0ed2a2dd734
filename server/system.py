"""`/v1/models` for clients; `/health`, `/ready`, `/version` for operators."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from loragen import __version__
from loragen.errors import EdgeModelNotFound, StoreUnavailable
from server.document import described
from server.services import Services, services, tenant

router = APIRouter()

Parts = Annotated[Services, Depends(services)]


@router.get("/v1/models", tags=["models"])
async def models(
    parts: Parts, owner: Annotated[str, Depends(tenant)], tasks: bool = False
) -> dict[str, Any]:
    """Return the edge models; with `tasks=true` also the tenant's named tasks."""
    names = list(parts.dispatcher.edge_models)
    if tasks:
        named = await parts.names.all(owner)
        records = await parts.store.records(owner, list(named.values()))
        names += [
            f"{records[task_id].edge_model}:{name}"
            for name, task_id in sorted(named.items())
            if task_id in records
        ]
    return {"object": "list", "data": [model_object(name) for name in names]}


@router.get("/v1/models/{name:path}", tags=["models"])
async def model(name: str, parts: Parts) -> dict[str, Any]:
    """Return one edge model."""
    if name not in parts.dispatcher.edge_models:
        raise EdgeModelNotFound(f"no model {name!r} is served", param="model")
    return model_object(name)


def model_object(name: str) -> dict[str, Any]:
    """Return a model as the API shows it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "loragen"}


@router.get("/health", tags=["operation"])
async def health() -> dict[str, str]:
    """Return 200 while the process lives."""
    return {"status": "ok"}


@router.get("/ready", tags=["operation"], responses=described(200, 503))
async def ready(parts: Parts) -> JSONResponse:
    """Return 200 when every configured model has a worker and Redis answers, else 503 and why.

    With how the workers of each model mix recipes.
    """
    backends = parts.dispatcher.backends()
    if parts.drain.has_begun:
        content = {"status": "draining", "missing": [], "backends": backends}
        return JSONResponse(content, status_code=503)
    missing = [f"no worker of {model!r}" for model in parts.dispatcher.missing()]
    try:
        await parts.store.ping()
    except StoreUnavailable as error:
        missing.append(error.message)
    status = "waiting" if missing else "ready"
    content = {"status": status, "missing": missing, "backends": backends}
    return JSONResponse(content, status_code=503 if missing else 200)


@router.get("/version", tags=["operation"])
async def version() -> dict[str, str]:
    """Return the version of the server."""
    return {"version": __version__}
