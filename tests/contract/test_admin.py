"""The admin API: tenants and keys, and that nothing of a deleted tenant is left."""

import asyncio
import functools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from loragen.limits import Limits
from loragen.secret_versions import version_id
from tests.fakes.admin import AdminApi, admin_api
from tests.fakes.gateway import MASTER_SECRET, MODEL, Gateway, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis

CANARY = "CANARY-19cd"


@pytest.fixture
def admin(valkey: Valkey, namespace: str) -> Iterator[AdminApi]:
    """An admin API over an empty namespace."""
    with admin_api(valkey.url, namespace) as running:
        yield running


@pytest.fixture
def closed(valkey: Valkey, namespace: str) -> Iterator[Gateway]:
    """A gateway of the same namespace that asks for keys."""
    shared = redis_shared(valkey.url, namespace, min_prompt_tokens=1)
    with gateway(shared, namespace, server={"auth": "keys"}, auto={"min_prompt_tokens": 1}) as run:
        yield run


def bear(gate: Gateway, key: str) -> None:
    """Let the client of a gateway show a key from here on."""
    gate.http.headers["authorization"] = f"Bearer {key}"


@pytest.mark.parametrize("shown", [None, "Bearer", "Bearer wrong", "Basic YTpi", "Bearer \xff"])
def test_without_its_secret_nothing_is_answered(admin: AdminApi, shown: str | None) -> None:
    headers = [] if shown is None else [(b"authorization", shown.encode("latin-1"))]
    for method, path in (("GET", "/admin/tenants"), ("POST", "/admin/tenants"), ("GET", "/docs")):
        reply = httpx.request(method, admin.url + path, headers=headers, content=b"{")
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == "invalid_api_key"


def test_a_tenants_key_does_not_open_it_nor_its_secret_the_api(
    admin: AdminApi, closed: Gateway
) -> None:
    admin.create_tenant()
    key = admin.create_key()["key"]
    bad = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{admin.url}/admin/tenants", headers=bad).status_code == 401
    secret = dict(admin.http.headers)["authorization"]
    assert (
        httpx.get(f"{closed.server.url}/v1/models", headers={"authorization": secret}).status_code
        == 401
    )


def test_the_public_port_has_none_of_its_paths(admin: AdminApi, closed: Gateway) -> None:
    admin.create_tenant()
    bear(closed, admin.create_key()["key"])
    for path in ("/admin/tenants", "/admin/tenants/acme", "/admin/tenants/acme/keys"):
        assert closed.http.get(path).status_code == 404


def test_tenants_are_made_listed_changed_and_shown(admin: AdminApi) -> None:
    made = admin.create_tenant("globex")
    assert made["force_prompt"] is False
    admin.create_tenant("acme")
    listed = admin.http.get("/admin/tenants").json()["data"]
    assert [each["id"] for each in listed] == ["acme", "globex"]
    path = "/admin/tenants/globex"
    changed = admin.http.patch(path, json={"force_prompt": True}).json()
    assert changed == {**made, "force_prompt": True}
    assert admin.http.patch(path, json={}).json() == changed
    assert admin.http.get(path).json() == changed


def test_limits_are_set_one_by_one_and_taken_away(admin: AdminApi) -> None:
    made = admin.create_tenant(limits={"tasks": 5, "requests_per_minute": 9})
    path = "/admin/tenants/acme"
    assert (made["limits"]["tasks"], made["limits"]["tokens_per_minute"]) == (5, None)
    changed = admin.http.patch(path, json={"limits": {"tasks": None, "prompt_bytes": 10}}).json()
    assert changed["limits"] == {**made["limits"], "tasks": None, "prompt_bytes": 10}
    assert admin.http.patch(path, json={"force_prompt": True}).json()["limits"] == changed["limits"]
    for wrong in ({"colour": 1}, {"tasks": -1}, {"tokens_per_minute": 0}, {"tasks": "many"}):
        reply = admin.http.patch(path, json={"limits": wrong})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == f"limits.{next(iter(wrong))}"


def test_limits_that_are_set_at_the_same_time_all_stay(admin: AdminApi) -> None:
    wanted = {name: number for number, name in enumerate(Limits.model_fields, 1)}
    admin.create_tenant()

    def set_one(name: str) -> int:
        changed = {"limits": {name: wanted[name]}}
        return admin.http.patch("/admin/tenants/acme", json=changed).status_code

    with ThreadPoolExecutor(len(wanted)) as threads:
        assert set(threads.map(set_one, wanted)) == {200}
    assert admin.http.get("/admin/tenants/acme").json()["limits"] == wanted


@pytest.mark.parametrize("tenant", ["", "A", "a b", "a:b", "a*", "-a", "a" * 64, "ä"])
def test_an_id_that_could_not_be_part_of_a_key_is_refused(admin: AdminApi, tenant: str) -> None:
    reply = admin.http.post("/admin/tenants", json={"id": tenant})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "id")


def test_what_is_wrong_is_said(admin: AdminApi) -> None:
    admin.create_tenant()
    again = admin.http.post("/admin/tenants", json={"id": "acme"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    unknown = admin.http.post("/admin/tenants", json={"id": "b", "colour": 1})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "colour")
    for method, path in (
        ("GET", "/admin/tenants/nobody"),
        ("PATCH", "/admin/tenants/nobody"),
        ("DELETE", "/admin/tenants/nobody"),
        ("GET", "/admin/tenants/nobody/keys"),
        ("POST", "/admin/tenants/nobody/keys"),
        ("DELETE", "/admin/tenants/acme/keys/nokey"),
        ("GET", "/admin/nowhere"),
    ):
        body: dict[str, str] | None = {} if method in ("POST", "PATCH") else None
        reply = admin.http.request(method, path, json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found"), path


def test_a_key_is_shown_once_and_opens_the_api_at_once(admin: AdminApi, closed: Gateway) -> None:
    assert closed.ask("hi").status_code == 401
    admin.create_tenant()
    key = admin.create_key()
    bear(closed, key["key"])
    assert closed.ask("hi").status_code == 200
    listed = admin.http.get("/admin/tenants/acme/keys")
    assert [each["id"] for each in listed.json()["data"]] == [key["id"]]
    assert key["key"].rpartition("_")[2] not in listed.text
    assert "digest" not in listed.text


def test_keys_are_rotated_without_a_gap(admin: AdminApi, closed: Gateway) -> None:
    admin.create_tenant()
    old, new = admin.create_key(), admin.create_key()
    bear(closed, old["key"])
    task_id = closed.create("You are Ada.")["id"]
    bear(closed, new["key"])
    assert closed.ask("hi", task_id=task_id).status_code == 200
    assert admin.http.delete(f"/admin/tenants/acme/keys/{old['id']}").status_code == 200
    assert closed.ask("hi", task_id=task_id).status_code == 200
    bear(closed, old["key"])
    wait_until(lambda: closed.ask("hi").status_code == 401, seconds=2)
    revoked = admin.http.get("/admin/tenants/acme/keys").json()["data"]
    assert {each["id"]: each["revoked_at"] is None for each in revoked} == {
        old["id"]: False, new["id"]: True,
    }  # fmt: skip


def test_a_key_expires(admin: AdminApi, closed: Gateway) -> None:
    admin.create_tenant()
    key = admin.create_key(expires_in_seconds=4)
    bear(closed, key["key"])
    assert closed.ask("hi").status_code == 200
    assert key["expires_at"] == key["created_at"] + 4
    wait_until(lambda: closed.ask("hi").status_code == 401, seconds=10)
    assert (
        admin.http.post("/admin/tenants/acme/keys", json={"expires_in_seconds": 0}).status_code
        == 400
    )


def test_a_tenant_can_be_forced_into_prompt_mode(admin: AdminApi, closed: Gateway) -> None:
    admin.create_tenant()
    bear(closed, admin.create_key()["key"])
    task_id = closed.create("You are Ada.")["id"]

    def mode() -> tuple[str, str | None]:
        headers = closed.ask("hi", task_id=task_id).headers
        return headers["x-loragen-mode"], headers.get("x-loragen-fallback-reason")

    assert mode() == ("compiled", None)
    admin.http.patch("/admin/tenants/acme", json={"force_prompt": True})
    wait_until(lambda: mode() == ("prompt", "operator_forced"), seconds=2)
    admin.http.patch("/admin/tenants/acme", json={"force_prompt": False})
    wait_until(lambda: mode() == ("compiled", None), seconds=2)


def test_of_a_deleted_tenant_nothing_is_left_and_of_others_everything(
    admin: AdminApi, closed: Gateway, valkey: Valkey, namespace: str
) -> None:
    tenants = (f"x{CANARY.lower()}", "lease", "compile")
    keys = {}
    limits = {"requests_per_minute": 10_000, "concurrent_requests": 9, "tokens_per_minute": 10**6}
    for tenant in tenants:
        admin.create_tenant(tenant, limits={**limits, "compiles_per_minute": 99})
        keys[tenant] = admin.create_key(tenant)
        bear(closed, keys[tenant]["key"])
        prompt = f"You are {tenant}."
        task_id = closed.create(prompt, name="ada")["id"]
        closed.create(f"{prompt} Gone.")
        gone = closed.create(f"{prompt} Gone.")["id"]
        closed.http.delete(f"/v1/tasks/{gone}")
        closed.ask("hi", task_id=task_id)
        auto = [{"role": "system", "content": f"I am {tenant}"}, {"role": "user", "content": "hi"}]
        # Seen, then an implicit task, with a conversation to remember while it compiles.
        wait_until(functools.partial(is_compiled, closed, auto))
        assert closed.http.get("/v1/usage").json()["total"]["requests"] > 0  # so it is written
    asyncio.run(_hold_leases(valkey.url, namespace, tenants))
    target, *others = tenants
    signs = (target.encode(), keys[target]["id"].encode())

    def names() -> set[bytes]:
        found = valkey.client.scan_iter(f"{namespace}:*")
        return {bytes(name) for name in found if b":usage-batch:" not in bytes(name)}

    before = names()
    mine = {name for name in before if any(sign in name for sign in signs)}
    assert len(mine) > 10

    assert admin.http.delete(f"/admin/tenants/{target}").json()["deleted"] is True
    assert names() == before - mine
    left = valkey.contents(namespace)
    assert [each for each in left if any(sign in each for sign in signs)] == []
    for tenant in others:
        bear(closed, keys[tenant]["key"])
        assert closed.ask("hi", task_id="ada").headers["x-loragen-mode"] == "compiled"
    bear(closed, keys[target]["key"])
    assert closed.ask("hi").status_code == 401
    assert admin.http.get(f"/admin/tenants/{target}").status_code == 404
    assert admin.http.delete(f"/admin/tenants/{target}").status_code == 404


def test_a_tenant_made_again_has_nothing_of_the_one_before(
    admin: AdminApi, closed: Gateway
) -> None:
    for _ in range(2):
        admin.create_tenant()
        bear(closed, admin.create_key()["key"])
        assert closed.http.get("/v1/tasks").json()["data"] == []
        assert closed.http.get("/v1/tasks/by-name/ada").status_code == 404
        closed.create("You are Ada.", name="ada")
        admin.http.delete("/admin/tenants/acme")


def test_without_redis_it_says_so(tmp_path: Path, namespace: str) -> None:
    server = Valkey(tmp_path)
    try:
        with admin_api(server.url, namespace) as admin:
            admin.create_tenant()
            server.kill()
            started = time.monotonic()
            reply = admin.http.get("/admin/tenants")
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "store_unavailable")
            assert time.monotonic() - started < 5
    finally:
        server.kill()


def is_compiled(gate: Gateway, messages: list[dict[str, str]]) -> bool:
    """Ask, and return whether it was served by a recipe."""
    body = {"model": MODEL, "messages": messages}
    reply = gate.http.post("/v1/chat/completions", json=body)
    return bool(reply.headers["x-loragen-mode"] == "compiled")


async def _hold_leases(url: str, namespace: str, tenants: tuple[str, ...]) -> None:
    shared = redis_shared(url, namespace)
    for tenant in tenants:
        for kind in ("compile", "refine"):
            await shared.leases.acquire(f"{kind}:{tenant}:task_x", "token", seconds=60)
    await shared.close()


def test_held_versions_are_shown_by_their_ids(admin: AdminApi) -> None:
    shown = admin.http.get("/admin/secrets")
    assert shown.json() == {
        "object": "list",
        "data": [
            {
                "object": "secret",
                "name": "master_secret",
                "versions": [version_id(bytes.fromhex(MASTER_SECRET))],
            }
        ],
        "renewal": None,
    }
    assert MASTER_SECRET not in shown.text


def test_a_method_that_is_not_there_is_answered_with_those_that_are(admin: AdminApi) -> None:
    for path, calls in admin.document["paths"].items():
        reply = admin.http.request("OPTIONS", path.replace("{", "").replace("}", ""))
        assert reply.status_code == 405, path
        assert reply.headers["allow"] == ", ".join(sorted(m.upper() for m in calls)), path


def test_a_change_does_not_wait_for_ever_for_another(
    admin: AdminApi, valkey: Valkey, namespace: str
) -> None:
    admin.create_tenant()
    lease = f"{namespace}:lease:tenant:acme"
    valkey.client.set(lease, "another's", ex=600)
    reply = admin.http.patch("/admin/tenants/acme", json={"force_prompt": True}, timeout=60)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
    assert valkey.client.get(lease) == b"another's"
    assert admin.http.get("/admin/tenants/acme").json()["force_prompt"] is False
