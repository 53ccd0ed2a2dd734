"""`python -m router_service`: run the generators in Ray Serve; `... actors` lists their actors."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from config.load import load_settings
from config.ports import PortClaim, require_free
from config.settings import Settings
from loragen.errors import StartupError
from loragen.logs import configure_logs
from router_service.plan import ServicePlan, plan_service
from router_service.ray_environment import prepare_ray, running_address

logger = logging.getLogger("router_service")
cli = typer.Typer(add_completion=False)

Config = Annotated[
    list[Path] | None,
    typer.Option("--config", help="YAML file, may be given several times; later ones win."),
]


@cli.callback(invoke_without_command=True)
def run(context: typer.Context, config: Config = None) -> None:
    """Run the router service: generators in Ray Serve actors behind POST /compile, refiners behind
    POST /refine.

    Exit status: 2 wrong configuration, 3 wrong or missing generator files.
    """
    if context.invoked_subcommand is not None:
        return
    with _startup_errors():
        settings = load_settings(config)
        configure_logs(settings.logs.level)
        serve_until_stopped(settings, plan_service(settings))


@cli.command()
def actors(config: Config = None) -> None:
    """List the actors of the running Ray; those that hold generators come first."""
    with _startup_errors():
        settings = load_settings(config)
        address = running_address(settings)
        prepare_ray(settings)
        from router_service.listing import list_actors, table
        from router_service.local_ray import join_ray

        join_ray(address)
        typer.echo(table(list_actors()))


def serve_until_stopped(settings: Settings, plan: ServicePlan) -> None:
    """Serve until SIGTERM or SIGINT, then end Ray and every process it started.

    Raises:
        ConfigError: the port is in use, or the configured Ray does not answer.
        ArtifactCorrupt: a generator cannot be loaded.
    """
    options = settings.generator
    if options.ray_address is None:
        require_free([PortClaim("generator.port", options.host, options.port)])
    prepare_ray(settings)
    from router_service.local_ray import open_ray
    from router_service.serving import serving

    try:
        _stop_on_signals()
        with open_ray(settings, cpus=plan.cpus(options)):
            _stop_on_signals()  # ray.init put its own handler there
            with serving(settings, plan):
                logger.info(
                    "router service ready",
                    extra={"url": f"http://{options.host}:{options.port}"},
                )
                while True:
                    signal.pause()
    except KeyboardInterrupt:
        logger.info("router service stopped")


@contextmanager
def _startup_errors() -> Iterator[None]:
    try:
        yield
    except StartupError as error:
        typer.echo(f"router service: {error.message}", err=True)
        raise typer.Exit(error.exit_code) from error


def _stop_on_signals() -> None:
    def stop(_: int, __: FrameType | None) -> None:
        # Once is enough: a second signal must not break into the clean end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


if __name__ == "__main__":
    cli()
