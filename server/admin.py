"""The admin API: tenants, keys and pools, on a port of its own and behind a secret of its own.

It shares nothing with the public application but what gateways share: no path of one is a path of
the other, and no tenant's key opens it.
"""

import hmac
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from loragen.api_key import ApiKey, KeyRecord
from loragen.errors import Conflict, LoragenError, NotFound, Unauthorized
from loragen.limits import Limits
from loragen.tenants import OPEN_TENANT, Tenant, TenantId
from loragen.wire import Digest
from server.authentication import bearer_token
from server.body_limit import BodyLimit
from server.document import install_document
from server.envelope import Envelope
from server.held_secrets import HeldSecrets
from server.http_errors import error_response, install_error_handlers
from server.pool_control import PoolControl
from server.requests import ApiRequest
from server.tenancy import Tenancy
from server.usage import UsageQuery

router = APIRouter(prefix="/admin")

_MAX_BODY_BYTES: Final = 64 << 10
_LINES: Final = "application/x-ndjson"


async def tenancy(request: Request) -> Tenancy:
    """Return what the handlers work with."""
    held: Tenancy = request.app.state.tenancy
    return held


Parts = Annotated[Tenancy, Depends(tenancy)]


async def pool_control(request: Request) -> PoolControl:
    """Return what the handlers of pools work with."""
    held: PoolControl = request.app.state.pool_control
    return held


Control = Annotated[PoolControl, Depends(pool_control)]


class CreateTenantRequest(ApiRequest):
    """`POST /admin/tenants`."""

    id: TenantId
    force_prompt: bool = False
    limits: Limits = Limits()


class ChangeTenantRequest(ApiRequest):
    """`PATCH /admin/tenants/{tenant}`: what is not given stays; a limit of null is none."""

    force_prompt: bool = False
    limits: Limits = Limits()


class CreateKeyRequest(ApiRequest):
    """`POST /admin/tenants/{tenant}/keys`."""

    expires_in_seconds: int | None = Field(None, ge=1)


class UpgradeRequest(ApiRequest):
    """`POST /admin/pools/{model}/upgrade`; without a pool, the one other that workers hold."""

    pool_id: Digest | None = None


class SwitchRequest(ApiRequest):
    """`POST /admin/pools/{model}/switch` and `/rollback`."""

    force: bool = False


@router.post("/tenants", status_code=201)
async def create_tenant(request: CreateTenantRequest, parts: Parts) -> dict[str, Any]:
    """Make a tenant, which has no key yet."""
    tenant = Tenant.model_validate({**request.model_dump(), "created_at": int(time.time())})
    if not await parts.tenants.create(tenant):
        raise Conflict(f"there is a tenant {request.id!r}", param="id")
    return _tenant_object(tenant)


@router.get("/tenants")
async def list_tenants(parts: Parts) -> dict[str, Any]:
    """Return all tenants, by id."""
    tenants = await parts.tenants.all()
    return {"object": "list", "data": [_tenant_object(tenant) for tenant in tenants]}


@router.get("/tenants/{tenant}")
async def show_tenant(tenant: str, parts: Parts) -> dict[str, Any]:
    """Return one tenant."""
    return _tenant_object(await parts.get(tenant))


@router.patch("/tenants/{tenant}")
async def change_tenant(tenant: str, request: ChangeTenantRequest, parts: Parts) -> dict[str, Any]:
    """Change a tenant, in all gateways within two seconds."""
    return _tenant_object(await parts.change(tenant, request.model_dump(exclude_unset=True)))


@router.delete("/tenants/{tenant}")
async def delete_tenant(tenant: str, parts: Parts) -> dict[str, Any]:
    """Delete a tenant with all that is its: keys, tasks, names, recipes, counts."""
    await parts.remove(tenant)
    return {"id": tenant, "object": "tenant", "deleted": True}


@router.post("/tenants/{tenant}/keys", status_code=201)
async def create_key(tenant: str, request: CreateKeyRequest, parts: Parts) -> dict[str, Any]:
    """Make a key; its text is in this answer and nowhere else."""
    key, now = ApiKey.make(), int(time.time())
    lifetime = request.expires_in_seconds
    record = KeyRecord(
        id=key.id,
        tenant=tenant,
        digest=key.digest,
        created_at=now,
        expires_at=None if lifetime is None else now + lifetime,
    )
    if not await parts.tenants.add_key(record):
        raise NotFound(f"no tenant {tenant!r}", param="tenant")
    return {**record.shown(), "key": key.text}


@router.get("/tenants/{tenant}/keys")
async def list_keys(tenant: str, parts: Parts) -> dict[str, Any]:
    """Return a tenant's keys, revoked ones too, oldest first; never their text."""
    await parts.get(tenant)
    keys = await parts.tenants.keys(tenant)
    return {"object": "list", "data": [record.shown() for record in keys]}


@router.delete("/tenants/{tenant}/keys/{key_id}")
async def revoke_key(tenant: str, key_id: str, parts: Parts) -> dict[str, Any]:
    """Revoke a key, in all gateways within two seconds."""
    await parts.revoke(tenant, key_id)
    return {"id": key_id, "object": "key", "revoked": True}


@router.get(
    "/usage",
    response_class=StreamingResponse,
    responses={200: {"content": {_LINES: {"schema": {"type": "string"}}}}},
)
async def export_usage(query: Annotated[UsageQuery, Query()], parts: Parts) -> Response:
    """Return what all tenants were served, a line of JSON for each day, mode and task."""
    since, until = query.days
    tenants = [tenant.id for tenant in await parts.tenants.all()]
    lines = parts.usage_lines(sorted({OPEN_TENANT, *tenants}), since=since, until=until)
    return StreamingResponse(lines, media_type=_LINES)


@router.get("/secrets")
async def show_secrets(request: Request) -> dict[str, Any]:
    """Return the ids of the versions that this gateway holds, and how far its renewal is."""
    held: HeldSecrets = request.app.state.held_secrets
    return held.shown()


@router.get("/pools")
async def list_pools(control: Control) -> dict[str, Any]:
    """Return which pool serves each edge model, which is coming, and how far its tasks are."""
    return {"object": "list", "data": await control.all()}


@router.post("/pools/{model:path}/upgrade")
async def upgrade_pool(model: str, request: UpgradeRequest, control: Control) -> dict[str, Any]:
    """Compile the tasks of an edge model for another pool, behind all answers."""
    return await control.upgrade(model, request.pool_id)


@router.post("/pools/{model:path}/switch")
async def switch_pool(model: str, request: SwitchRequest, control: Control) -> dict[str, Any]:
    """Serve from the pool that is coming, in all gateways within two seconds."""
    return await control.switch(model, force=request.force)


@router.post("/pools/{model:path}/rollback")
async def roll_back_pool(model: str, request: SwitchRequest, control: Control) -> dict[str, Any]:
    """Give up the pool that is coming; or, after the switch, serve from the one before."""
    return await control.roll_back(model, force=request.force)


# Behind the paths that begin as its own does: what is allowed there is what they allow.
@router.get("/pools/{model:path}")
async def show_pools(model: str, control: Control) -> dict[str, Any]:
    """Return which pool serves one edge model, which is coming, and how far its tasks are."""
    return await control.show(model)


class AdminEntrance:
    """Pure ASGI middleware: nothing of the application is reached without the secret."""

    def __init__(self, app: ASGIApp, *, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            shown = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if not hmac.compare_digest(bearer_token(shown).encode(), self._secret):
                error: LoragenError = Unauthorized("the admin secret is missing or wrong")
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def build_admin(parts: Tenancy, control: PoolControl, held: HeldSecrets, *, secret: str) -> FastAPI:
    """Return the admin application; what it works with is opened and closed elsewhere."""
    app = FastAPI(title="LoRA-Gen Server admin", openapi_url=None, redirect_slashes=False)
    app.state.tenancy = parts
    app.state.pool_control = control
    app.state.held_secrets = held
    install_error_handlers(app)
    install_document(app, auth="keys")
    app.include_router(router)
    app.add_middleware(BodyLimit, max_bytes=_MAX_BODY_BYTES)
    app.add_middleware(AdminEntrance, secret=secret)
    app.add_middleware(Envelope)
    return app


def _tenant_object(tenant: Tenant) -> dict[str, Any]:
    return {"object": "tenant", **tenant.model_dump()}
