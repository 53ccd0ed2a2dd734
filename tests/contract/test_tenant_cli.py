"""`loragen tenants` and `loragen keys` against a running gateway, from the first key on."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from config.cli import cli
from config.ports import free_port
from config.secret_store import SecretStore
from tests.fakes.admin import ADMIN_SECRET, AdminApi, admin_api
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gateway_process import GatewayProcess, config_of, gateway_processes
from tests.fakes.live import live
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def done(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


@pytest.fixture
def admin(
    valkey: Valkey, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[AdminApi]:
    """An admin API as the stack of `tmp_path` would have it."""
    monkeypatch.setenv("LORAGEN_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("LORAGEN_ADMIN_SECRET", ADMIN_SECRET)
    with admin_api(valkey.url, namespace) as running:
        (tmp_path / "run.json").write_text(json.dumps({"admin_url": running.url}))
        yield running


@pytest.fixture
def process(valkey: Valkey, namespace: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway process as the launcher starts it, with its secret in the state folder."""
    secret = SecretStore(tmp_path).value("admin_secret", None)
    port = free_port()
    with live(FakeWorker().app) as worker:
        config = config_of([worker.url], namespace=namespace, auth="keys", admin_port=port)
        environment = {"LORAGEN_ADMIN_SECRET": secret}
        with gateway_processes(tmp_path, config, valkey.url, environment=environment) as started:
            (tmp_path / "run.json").write_text(
                json.dumps({"admin_url": f"http://127.0.0.1:{port}"})
            )
            yield started[0]


def test_the_first_key_of_a_fresh_start_opens_the_gateway(
    process: GatewayProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORAGEN_STATE_DIR", str(tmp_path))
    assert process.status("/v1/models") == 401
    key = done("keys", "create", "--tenant", "acme")
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{process.url}/v1/models", headers=headers).status_code == 200
    log = process.log.read_text()
    assert "API keys are required" in log
    assert "PROMPTS ARE STORED AS THEY ARE" in log  # no encryption key is set
    assert key not in log


def test_tenants_are_made_changed_listed_and_deleted(admin: AdminApi) -> None:
    made = json.loads(done("tenants", "create", "acme"))
    assert json.loads(done("tenants", "show", "acme")) == made
    assert json.loads(done("tenants", "set", "acme", "--force-prompt"))["force_prompt"] is True
    assert json.loads(done("tenants", "set", "acme"))["force_prompt"] is True
    assert json.loads(done("tenants", "set", "acme", "--no-force-prompt")) == made
    assert done("tenants", "list").startswith("acme\t20")
    assert run("tenants", "delete", "acme").exit_code == 1  # nobody said yes
    assert done("tenants", "show", "acme")
    assert done("tenants", "delete", "acme", "--yes") == "tenant acme is deleted"
    assert done("tenants", "list") == ""


def test_limits_are_set_and_taken_away(admin: AdminApi) -> None:
    done("tenants", "create", "acme")
    limits = ("--limit", "tasks=5", "--limit", "tokens_per_minute=900")
    changed = json.loads(done("tenants", "set", "acme", *limits))["limits"]
    assert (changed["tasks"], changed["tokens_per_minute"]) == (5, 900)
    changed = json.loads(done("tenants", "set", "acme", "--limit", "tasks=none"))["limits"]
    assert (changed["tasks"], changed["tokens_per_minute"]) == (None, 900)
    for wrong in ("colour=1", "tasks", "tasks=many", "tasks=-1"):
        result = run("tenants", "set", "acme", "--limit", wrong)
        assert (result.exit_code, "requests_per_minute" in result.output) == (2, True)


def test_keys_are_made_listed_and_revoked(admin: AdminApi) -> None:
    first = run("keys", "create", "--tenant", "acme")
    assert "tenant acme is new" in first.stderr
    second = run("keys", "create", "--tenant", "acme", "--expires-in-days", "30")
    assert "new" not in second.stderr
    keys = [result.stdout.strip() for result in (first, second)]
    ids = [key.split("_")[1] for key in keys]
    assert done("keys", "revoke", ids[0], "--tenant", "acme") == f"key {ids[0]} is revoked"
    states = {line.split("\t")[0]: line.split("\t")[2] for line in listed("acme")}
    assert states[ids[0]].startswith("revoked 20")
    assert states[ids[1]].startswith("expires 20")
    assert not [key for key in keys if key.rpartition("_")[2] in "\n".join(listed("acme"))]


def test_usage_is_exported_by_the_line(admin: AdminApi) -> None:
    assert done("tenants", "usage") == ""
    assert done("tenants", "usage", "--since", "2026-01-01", "--until", "2026-01-31") == ""
    result = run("tenants", "usage", "--since", "yesterday")
    assert (result.exit_code, "since" in result.output) == (1, True)


def listed(tenant: str) -> list[str]:
    return done("keys", "list", "--tenant", tenant).splitlines()


def test_what_is_refused_is_said_in_a_line(admin: AdminApi) -> None:
    result = run("tenants", "show", "nobody")
    assert (result.exit_code, result.output) == (1, "loragen: no tenant 'nobody'\n")
    assert run("keys", "create", "--tenant", "No Body").output.startswith("loragen: id: ")


def test_without_a_running_stack_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORAGEN_STATE_DIR", str(tmp_path))
    result = run("tenants", "list")
    assert (result.exit_code, "no admin_secret" in result.output) == (2, True)
    assert not (tmp_path / "secrets").exists()
    monkeypatch.setenv("LORAGEN_ADMIN_SECRET", ADMIN_SECRET)
    result = run("tenants", "list")
    assert (result.exit_code, "no stack runs" in result.output) == (2, True)
    result = run("tenants", "list", "--url", "http://127.0.0.1:1")
    assert (result.exit_code, "does not answer" in result.output) == (1, True)
