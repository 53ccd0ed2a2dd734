"""Admin: what `loragen tenants` and `loragen keys` ask the admin API of a running gateway."""

from typing import Any, Final

import httpx

from config.secret_store import SecretStore
from config.settings import Settings
from config.stack import local_url
from config.state_folder import running
from loragen.errors import ConfigError, LoragenError

_ANSWER_SECONDS: Final = 60.0


class Admin:
    """The admin API. Every call raises LoragenError where it is refused or not answered.

    And ConfigError where its address is none.
    """

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret

    @classmethod
    def of(cls, settings: Settings, url: str | None = None) -> "Admin":
        """Return the admin API at an address, by default where this configuration runs.

        Raises:
            ConfigError: nothing runs here, or its secret is not here.
        """
        secret = SecretStore(settings.state_dir).kept("admin_secret", settings.admin_secret)
        return cls(url or _address(settings), secret)

    def get(self, path: str) -> dict[str, Any]:
        """Return what is at a path below `/admin`."""
        return self._call("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make something."""
        return self._call("POST", path, body)

    def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Change something."""
        return self._call("PATCH", path, body)

    def delete(self, path: str) -> dict[str, Any]:
        """Delete something."""
        return self._call("DELETE", path)

    def ensure_tenant(self, tenant: str) -> bool:
        """Make a tenant unless it exists; whether it is new."""
        known = self.get("/tenants")["data"]
        if any(each["id"] == tenant for each in known):
            return False
        self.post("/tenants", {"id": tenant})
        return True

    def lines(self, path: str, query: dict[str, str]) -> list[str]:
        """Return the lines of an export."""
        return self._ask("GET", path, query=query).text.splitlines()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        reply = self._ask(method, path, body=body)
        try:
            answer: dict[str, Any] = reply.json()
        except ValueError as error:
            raise LoragenError(f"what answers at {self._url} is no admin API") from error
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        query: dict[str, str] | None = None,
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._secret}"}
        url = f"{self._url}/admin{path}"
        try:
            reply = httpx.request(
                method, url, json=body, params=query, headers=headers, timeout=_ANSWER_SECONDS
            )
        except httpx.InvalidURL as error:
            raise ConfigError(f"{self._url!r} is no address: {error}") from error
        except httpx.HTTPError as error:
            raise LoragenError(f"the admin API at {self._url} does not answer") from error
        if reply.is_error:
            raise LoragenError(_reason(reply))
        return reply


def _reason(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{reply.url} answered {reply.status_code}"


def _address(settings: Settings) -> str:
    server = settings.server
    if server.admin_port is not None:
        return local_url(server.admin_host, server.admin_port)
    url = running(settings.state_dir).get("admin_url")
    if not isinstance(url, str):
        raise ConfigError(
            f"no stack runs with state_dir {settings.state_dir}: start it, or give --url"
        )
    return url
