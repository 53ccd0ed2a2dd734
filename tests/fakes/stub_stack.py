"""`loragen up` with small programs in place of router service, worker and server.

usage: python -m tests.fakes.stub_stack FOLDER [--failing PROGRAM]
Redis is the real one. Every stub has a child in a session of its own, as the real ones have.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from config.edge_model import EdgeModelSettings
from config.environment import child_environment
from config.ports import free_port
from config.probe import answers
from config.redis_server import RedisServer
from config.settings import ServerSettings, Settings
from config.stack import Stack
from config.state_folder import StateFolder
from config.supervisor import ChildSpec
from config.up import up
from loragen.errors import StartupError

SERVICE = """
import http.server, subprocess, sys, tempfile
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
open(tempfile.mkstemp()[1], "w").write("scratch")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class StubPlan:
    """Plans the stubs; one of them may run another program."""

    def __init__(self, failing: str | None) -> None:
        self._failing = failing

    def __call__(
        self, settings: Settings, files: Sequence[Path], *, state: StateFolder, temp: Path
    ) -> Stack:
        """Return the stack."""
        environment = child_environment(TMPDIR=str(temp))
        redis = RedisServer(state.path / "redis", free_port(), "password")
        first = ChildSpec("redis", redis.command(), environment, state.log("redis"), redis.is_ready)
        stubs = []
        for stage, name in enumerate(("router_service", "worker demo", "server"), start=1):
            port = settings.server.port if name == "server" else free_port()
            program = self._failing if self._failing and name == "worker demo" else SERVICE
            stub = ChildSpec(
                name,
                (sys.executable, "-c", program, str(port)),
                environment,
                state.log(name),
                answers(f"http://127.0.0.1:{port}/"),
                stage,
            )
            stubs.append(stub)
        url = f"http://127.0.0.1:{settings.server.port}"
        return Stack((first, *stubs), url, redis.url, admin_url=url)


def main(folder: Path, failing: str | None = None) -> None:
    """Run the stub stack."""
    settings = Settings(
        state_dir=folder / "state",
        server=ServerSettings(port=free_port()),
        edge_models=(EdgeModelSettings(name="demo", model=folder / "edge"),),
    )
    settings.edge_models[0].model.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "chat_template.jinja"):
        (settings.edge_models[0].model / name).touch()
    try:
        up(settings, [], None, plan=StubPlan(failing))
    except StartupError as error:
        typer.echo(f"loragen: {error.message}", err=True)
        raise typer.Exit(error.exit_code) from error


if __name__ == "__main__":
    typer.run(main)
