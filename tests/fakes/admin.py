"""The admin API over a real Redis-protocol server."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import SecretStr

from server.app import create_admin
from server.pools import Pools
from tests.fakes.gateway import redis_shared, settings
from tests.fakes.live import live

ADMIN_SECRET = "admin-secret-of-tests"


@dataclass
class AdminApi:
    """A running admin API and a client that holds its secret."""

    url: str
    http: httpx.Client
    document: dict[str, Any]
    """How it describes itself, which it tells nobody."""

    def create_tenant(self, tenant: str = "acme", **fields: Any) -> dict[str, Any]:
        """Make a tenant."""
        return self._made("/admin/tenants", {"id": tenant, **fields})

    def create_key(self, tenant: str = "acme", **fields: Any) -> dict[str, Any]:
        """Make a key; its text is in `key`."""
        return self._made(f"/admin/tenants/{tenant}/keys", fields)

    def _made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.http.post(path, json=body)
        assert reply.status_code == 201, reply.text
        made: dict[str, Any] = reply.json()
        return made


@contextlib.contextmanager
def admin_api(redis_url: str, namespace: str) -> Iterator[AdminApi]:
    """Run the admin API of a namespace for the length of a block."""
    told = settings([], namespace=namespace, redis_url=redis_url).model_copy(
        update={"admin_secret": SecretStr(ADMIN_SECRET)}
    )
    shared = redis_shared(redis_url, namespace)
    headers = {"authorization": f"Bearer {ADMIN_SECRET}"}
    app = create_admin(told, shared, Pools({}, shared.pools, lambda _: None))
    with (
        live(app) as server,
        httpx.Client(base_url=server.url, headers=headers, timeout=20) as http,
    ):
        yield AdminApi(server.url, http, app.openapi())
