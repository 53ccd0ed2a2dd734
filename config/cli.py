"""The `loragen` command: start everything, refine, keep tenants and secrets, see settings."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from config.bootstrap import make_pool
from config.check import file_problems
from config.command import Config, load, own_errors
from config.load import load_settings
from config.pool_cli import pools_cli
from config.reference import configuration_page
from config.refine import refine_task, summary
from config.secrets_cli import secrets_cli
from config.stack import local_url
from config.tenant_cli import keys_cli, tenants_cli
from config.up import up as run_up
from loragen.errors import StartupError

PAGE: Final = Path("docs/configuration.md")

config_cli = typer.Typer(add_completion=False, no_args_is_help=True)
cli = typer.Typer(
    add_completion=False, no_args_is_help=True, help="LoRA-Gen Server on this machine."
)
cli.add_typer(config_cli, name="config", help="Look at the configuration.")
cli.add_typer(tenants_cli, name="tenants", help="Tenants of the running gateway.")
cli.add_typer(keys_cli, name="keys", help="Their API keys.")
cli.add_typer(secrets_cli, name="secrets", help="Versions of secrets; no secret is ever shown.")
cli.add_typer(pools_cli, name="pools", help="Pools of the running gateway, and their upgrades.")


@cli.command()
def up(
    config: Config = None,
    examples: Annotated[
        Path | None, typer.Option(help="JSON file of prompts to show when ready.")
    ] = None,
) -> None:
    """Start everything the configuration needs and run until Ctrl-C.

    Redis, the router service, one worker per edge model and the gateway. Without --config: the
    files of LORAGEN_CONFIG, else the demo. Exit status: 2 wrong configuration, 3 wrong or missing
    files, 4 a worker failed its self-test, 1 anything else.
    """
    with own_errors():
        settings, files = load(config)
        run_up(settings, files, examples)


@cli.command()
def refine(
    task: Annotated[str, typer.Argument(help="Id of the task.")],
    probes: Annotated[
        Path | None,
        typer.Option(
            help='File of probes, a line each: {"input": ..., "output"?: ...}. '
            "Default: the task's own, or messages that the edge model expects."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="The running server; default: this configuration's.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="LORAGEN_API_KEY", help="Where the server asks for one.")
    ] = None,
    config: Config = None,
) -> None:
    """Refine a task of the running server, and wait for what comes of it.

    Exit status: 2 unreadable file or configuration, 1 refused or failed.
    """
    with own_errors():
        settings, _ = load(config)
        url = url or local_url(settings.server.host, settings.server.port)
        outcome = refine_task(url, task, probes, key=key)
    typer.echo(summary(outcome))
    if outcome["status"] == "failed":
        raise typer.Exit(1)


@cli.command()
def bootstrap_pool(
    model: Annotated[Path, typer.Option(help="Folder of the Hugging Face model.")],
    out: Annotated[
        Path, typer.Option(help="File to write, such as pool.safetensors; not in that folder.")
    ],
    columns: Annotated[
        int, typer.Option(help="Experts per linear, up to 256: more say more and cost more.")
    ] = 128,
    compiled_template: Annotated[
        str | None,
        typer.Option(help="As edge_models[].compiled_template, where that is set: family or file."),
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="As edge_models[].chat_template, where that is set: a file.")
    ] = None,
) -> None:
    """Make a pool for a model that nobody trained a generator for, from its own weights.

    Name the file as edge_models[].pool: the model's tasks start in prompt mode, and each is
    compiled when it is refined (loragen refine). Minutes for a model of a billion parameters, and
    no GPU. Exit status: 2 wrong options, 3 wrong or missing model files.
    """
    with own_errors():
        status = make_pool(
            model,
            out,
            columns=columns,
            compiled_choice=compiled_template,
            chat_template=chat_template,
        )
    raise typer.Exit(status)


@config_cli.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="YAML files, each checked by itself.")],
) -> None:
    """Check configuration files; exit status 2 when one is wrong."""
    wrong = False
    for file in files:
        try:
            settings = load_settings([file])
        except StartupError as error:
            wrong = True
            for problem in error.message.split("; "):
                typer.echo(f"{file}: {problem}", err=True)
            continue
        for line in file_problems(settings):
            typer.echo(f"{file}: warning: {line}", err=True)
        typer.echo(f"{file}: ok")
    if wrong:
        raise typer.Exit(2)


@config_cli.command()
def show(config: Config = None) -> None:
    """Print the configuration in force as JSON, secrets masked."""
    with own_errors():
        settings, _ = load(config)
        typer.echo(json.dumps(settings.model_dump(mode="json"), indent=2))


@config_cli.command()
def docs(
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = PAGE,
) -> None:
    """Write the page of all settings."""
    out.write_text(configuration_page(), encoding="utf-8")
    typer.echo(f"wrote {out}")


def main() -> None:
    """Run the `loragen` command."""
    cli()


def config_main() -> None:
    """Run `python -m config`: the configuration commands, and `up`."""
    config_cli.command()(up)
    config_cli()
