"""The admin API's client: what is wrong with an address is said in a line."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from config.admin import Admin
from config.probe import require_redis
from loragen.errors import ConfigError, LoragenError


class Page(http.server.BaseHTTPRequestHandler):
    """Some other service."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_another_service_is_no_admin_api(other: str) -> None:
    with pytest.raises(LoragenError, match="is no admin API"):
        Admin(other, "secret").get("/tenants")


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Admin("http://127.0.0.1:port", "secret").get("/tenants")


async def test_a_redis_address_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="redis_url"):
        await require_redis("redis://127.0.0.1:63x9")
