"""The APIs as their own OpenAPI documents describe them, asked by schemathesis.

A real gateway that asks for keys and the admin API, over a real Redis-protocol server, a fake
worker and a stub generator. Schemathesis sends what a document allows and what it does not, one
call alone and calls that follow from one another, and holds every answer to the document.
"""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.environment import child_environment
from tests.fakes.admin import ADMIN_SECRET, AdminApi, admin_api
from tests.fakes.gateway import gateway, redis_shared
from tests.fakes.valkey import Valkey

SCHEMATHESIS: Final = Path(sys.executable).with_name("schemathesis")
_SETTINGS: Final = Path(__file__).with_name("schemathesis.toml")
_NAMESPACE: Final = "fuzz"
_ADMIN_SHARE: Final = 0.2
_CASES: Final = re.compile(r"^  (\d+) generated", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Api:
    """One API: where it is, the document that describes it, the key it wants."""

    name: str
    url: str
    document: dict[str, Any]
    key: str
    share: float
    """Of the time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How the asking of one API went."""

    cases: int
    status: int

    def summary(self) -> dict[str, Any]:
        """Return it as the summary has it."""
        return {"cases": self.cases, "found": self.status != 0}


def ask_all(folder: Path, found: Path, *, seconds: int, seed: int) -> dict[str, Asked]:
    """Ask both APIs, one after the other, for so long in all; what is found is in log files."""
    with _apis(folder) as apis:
        return {
            api.name: _ask(api, folder, found, seconds=round(api.share * seconds), seed=seed)
            for api in apis
        }


@contextlib.contextmanager
def _apis(folder: Path) -> Iterator[list[Api]]:
    redis = Valkey(folder)
    shared = redis_shared(redis.url, _NAMESPACE)
    try:
        with (
            gateway(shared, _NAMESPACE, server={"auth": "keys"}) as gate,
            admin_api(redis.url, _NAMESPACE) as admin,
        ):
            key = _key(admin)
            gate.http.headers["authorization"] = f"Bearer {key}"
            document = gate.http.get("/openapi.json").json()
            yield [
                Api("public", gate.server.url, document, key, 1 - _ADMIN_SHARE),
                Api("admin", admin.url, admin.document, ADMIN_SECRET, _ADMIN_SHARE),
            ]
    finally:
        redis.kill()


def _ask(api: Api, folder: Path, found: Path, *, seconds: int, seed: int) -> Asked:
    document, log = folder / f"{api.name}.json", found / f"api-{api.name}.log"
    document.write_text(json.dumps(api.document))
    command = (
        str(SCHEMATHESIS), "--config-file", str(_SETTINGS), "--no-color", "run", str(document),
        "--url", api.url, "--header", f"Authorization: Bearer {api.key}",
        "--checks", "all", "--mode", "all", "--continue-on-failure", "--warnings", "off",
        "--max-time", str(max(1, seconds)), "--seed", str(seed), "--generation-database", "none",
    )  # fmt: skip
    environment = child_environment(SCHEMATHESIS_HOOKS="tests.fuzz.hooks")
    with log.open("wb") as output:
        status = subprocess.run(
            command, check=False, env=environment, stdout=output, stderr=output
        ).returncode
    cases = _CASES.search(log.read_text(errors="replace"))
    return Asked(int(cases[1]) if cases else 0, status)


def _key(admin: AdminApi) -> str:
    admin.create_tenant()
    return str(admin.create_key()["key"])
