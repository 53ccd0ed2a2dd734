"""`python -m server`: run the gateway."""

import ipaddress
import logging
from pathlib import Path
from typing import Annotated

import typer
from fastapi import FastAPI

from config.load import load_settings
from config.ports import PortClaim, require_free
from config.settings import Settings
from loragen.errors import ConfigError, StartupError
from loragen.logs import configure_logs
from server.app import create_app
from server.exposition import serve_metrics
from server.serve import DrainingServer, SideServer

logger = logging.getLogger(__name__)


def main(
    config: Annotated[
        list[Path] | None,
        typer.Option("--config", help="YAML file, may be given several times; later ones win."),
    ] = None,
) -> None:
    """Run the LoRA-Gen gateway: the OpenAI-compatible API over workers, generator and Redis."""
    try:
        settings = load_settings(config)
        configure_logs(settings.logs.level)
        _refuse_open_network(settings)
        app = create_app(settings)
        _require_admin_port(settings)
        _serve_metrics(settings)
    except StartupError as error:
        typer.echo(f"server: {error.message}", err=True)
        raise typer.Exit(error.exit_code) from error
    _say_whether_sealed(settings)
    if settings.server.auth == "keys":
        logger.info("API keys are required")
    elif _is_loopback(settings.server.host):
        logger.info("no API key is required (server.auth: open): one open tenant, loopback only")
    else:
        logger.warning(
            "OPEN TO THE NETWORK WITHOUT API KEYS (server.allow_open_network): whoever reaches "
            "this port is the one tenant",
            extra={"host": settings.server.host, "port": settings.server.port},
        )
    server = DrainingServer(
        app, settings.server, app.state.services.drain, beside=_admin_server(settings, app)
    )
    server.run()
    if not server.started:
        raise typer.Exit(1)


def _refuse_open_network(settings: Settings) -> None:
    server = settings.server
    is_guarded = server.auth == "keys" or server.allow_open_network
    if not is_guarded and not _is_loopback(server.host):
        raise ConfigError(
            f"server.host: {server.host} is not a loopback address, and no API key is required: "
            "set server.auth to keys, or behind a network policy server.allow_open_network"
        )


def _say_whether_sealed(settings: Settings) -> None:
    if settings.encryption_key is None:
        logger.warning(
            "PROMPTS ARE STORED AS THEY ARE (encryption_key is not set): whoever reads Redis, its "
            "files or their backups reads them"
        )
    else:
        logger.info("prompts, tools, probes and recipes are encrypted in Redis")


def _require_admin_port(settings: Settings) -> None:
    host, port = settings.server.admin_host, settings.server.admin_port
    if port is not None:
        require_free([PortClaim("server.admin_port", host, port)])


def _serve_metrics(settings: Settings) -> None:
    host, port = settings.server.host, settings.server.metrics_port
    if port is not None:
        require_free([PortClaim("server.metrics_port", host, port)])
        serve_metrics(host, port)


def _admin_server(settings: Settings, app: FastAPI) -> SideServer | None:
    host, port = settings.server.admin_host, settings.server.admin_port
    if port is None:
        return None
    patience = settings.server.client_timeout_seconds
    return SideServer(app.state.admin, host=host, port=port, client_seconds=patience)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    typer.run(main)
