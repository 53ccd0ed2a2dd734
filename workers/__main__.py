"""`python -m workers`: serve one edge model."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from config.load import load_settings
from loragen.errors import StartupError
from loragen.logs import configure_logs
from workers.launch import Launch

logger = logging.getLogger("workers")

LOOPBACK = "127.0.0.1"


def serve(
    edge_model: Annotated[
        str, typer.Option(help="Name of the edge model in the configuration.", metavar="NAME")
    ],
    config: Annotated[
        list[Path] | None,
        typer.Option(help="Configuration file; repeat to layer. Default: LORAGEN_CONFIG."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind. Beyond loopback, LORAGEN_WORKER_SECRET is needed.")
    ] = LOOPBACK,
    port: Annotated[
        int | None, typer.Option(help="Port to bind. Default: the edge model's.")
    ] = None,
    use_next: Annotated[
        bool, typer.Option("--next", help="Hold the pool of the edge model's next_generator.")
    ] = False,
) -> None:
    """Serve one edge model: vLLM's OpenAI server, with recipes mixed inside the batch.

    /health answers once the boot self-test passed. Exit status: 2 wrong configuration, 3 wrong or
    missing files, 4 self-test failed.
    """
    configure_logs("INFO")
    try:
        settings = load_settings(config)
        model = settings.edge_model(edge_model)
        if use_next:
            model = model.upgraded()
        launch = Launch.plan(settings, model, host=host, port=port or model.port)
    except StartupError as error:
        logger.critical("worker refuses to start: %s", error)
        raise typer.Exit(error.exit_code) from error
    launch.become()


if __name__ == "__main__":
    typer.run(serve)
