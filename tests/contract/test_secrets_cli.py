"""`loragen secrets` keeps the versions of a local start, and never shows one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from config.cli import cli
from config.secret_store import SecretStore
from loragen.secret_versions import parse_versions, version_id
from server.app import create_admin
from server.pools import Pools
from server.renewal import Renewal, RenewalState
from tests.fakes.admin import ADMIN_SECRET
from tests.fakes.gateway import redis_shared, settings
from tests.fakes.live import live
from tests.fakes.valkey import Valkey

pytestmark = pytest.mark.redis


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAGEN_STATE_DIR", str(tmp_path))
    return tmp_path


def run(*words: str) -> Any:
    return CliRunner().invoke(cli, ["secrets", *words])


def done(*words: str) -> list[str]:
    """Return the lines of a command that succeeds and shows no secret."""
    result = run(*words)
    assert result.exit_code == 0, result.output
    return [str(line) for line in result.output.splitlines()]


def kept(state: Path, name: str) -> list[bytes]:
    path = state / "secrets" / name
    assert path.stat().st_mode & 0o077 == 0
    return list(parse_versions(path.read_text(), name=name))


def ids(state: Path, name: str) -> list[str]:
    return [version_id(each) for each in kept(state, name)]


@pytest.mark.parametrize("name", ["master_secret", "encryption_key"])
def test_versions_are_added_and_used_and_never_shown(state: Path, name: str) -> None:
    assert done("list") == []
    said = done("add", name)
    (first,) = ids(state, name)
    said += done("add", name)
    assert ids(state, name)[0] == first  # until it is used
    second = ids(state, name)[1]
    said += done("use", name, second)
    assert ids(state, name) == [second, first]
    said += done("list")
    assert said[-2:] == [f"{name}\t{second}\tnew values", f"{name}\t{first}\twhat is there"]
    for secret in kept(state, name):
        assert not [line for line in said if secret.hex() in line]


def test_the_secret_that_a_start_made_is_the_first_version(state: Path) -> None:
    made = SecretStore(state).value("master_secret", None)
    done("add", "master_secret")
    assert kept(state, "master_secret")[0].hex() == made
    assert SecretStore(state).value("master_secret", None).splitlines()[0] == made


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add", "worker_secret"), "has no versions"),
        (("use", "master_secret", "00000000"), "no version '00000000'"),
        (("retire", "master_secret", "00000000"), "no version '00000000'"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], says: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert says in result.output


def test_a_secret_of_the_environment_is_changed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAGEN_MASTER_SECRET", "5a" * 32)
    result = run("add", "master_secret")
    assert (result.exit_code, "5a5a" in result.output) == (2, False)
    assert "environment" in result.output


class Held:
    """A renewal that a test says the state of."""

    def __init__(self) -> None:
        self.state = RenewalState("running")


@pytest.fixture
def renewal(valkey: Valkey, namespace: str, state: Path) -> Iterator[Held]:
    """An admin API of a gateway that holds the versions of the state folder."""
    for _ in range(2):
        done("add", "encryption_key")
    SecretStore(state).replace("admin_secret", ADMIN_SECRET)
    held: Any = Held()
    told = settings([], namespace=namespace, redis_url=valkey.url).model_copy(
        update={
            "admin_secret": SecretStr(ADMIN_SECRET),
            "encryption_key": SecretStr((state / "secrets" / "encryption_key").read_text()),
        }
    )
    renewal: Renewal = held
    shared = redis_shared(valkey.url, namespace)
    pools = Pools({}, shared.pools, lambda _: None)
    with live(create_admin(told, shared, pools, renewal)) as server:
        (state / "run.json").write_text(f'{{"admin_url": "{server.url}"}}')
        yield held


def test_a_version_is_retired_once_nothing_needs_it(renewal: Held, state: Path) -> None:
    newest, older = ids(state, "encryption_key")
    result = run("retire", "encryption_key", newest)
    assert (result.exit_code, "is the one for what is new" in result.output) == (2, True)
    for now, says in (
        (RenewalState("running"), "still renews"),
        (RenewalState("done", unreadable=2), "2 stored values"),
    ):
        renewal.state = now
        result = run("retire", "encryption_key", older)
        assert (result.exit_code, says in result.output) == (1, True)
    renewal.state = replace(renewal.state, unreadable=0)
    done("use", "encryption_key", older)
    result = run("retire", "encryption_key", newest)
    assert "does not use version" in result.output  # it was not restarted
    done("use", "encryption_key", newest)
    done("retire", "encryption_key", older)
    assert ids(state, "encryption_key") == [newest]


def test_without_a_gateway_only_force_retires(state: Path) -> None:
    for _ in range(2):
        done("add", "master_secret")
    newest, older = ids(state, "master_secret")
    assert run("retire", "master_secret", older).exit_code == 2
    done("retire", "master_secret", older, "--force")
    assert ids(state, "master_secret") == [newest]
