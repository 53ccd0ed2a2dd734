"""`loragen pools`: what an operator does to the pools of a running gateway."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from config.admin import Admin
from config.command import Config, load, own_errors

pools_cli = typer.Typer(no_args_is_help=True)

Url = Annotated[
    str | None, typer.Option(help="The admin API; default: of this configuration's stack.")
]
Model = Annotated[str, typer.Argument(help="Name of the edge model.")]
Force = Annotated[bool, typer.Option("--force", help="Whatever is not ready.")]


@pools_cli.command("list")
def list_pools(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """List every edge model's pools, one a line: state, workers, how many requests are ready."""
    with own_errors():
        found = _admin(config, url).get("/pools")["data"]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for pools in found:
        for line in _lines(pools):
            typer.echo(line)


@pools_cli.command("upgrade")
def upgrade(
    model: Model,
    pool: Annotated[
        str | None, typer.Option(help="Id of the pool; default: the one other that workers hold.")
    ] = None,
    url: Url = None,
    config: Config = None,
) -> None:
    """Compile a model's tasks for another pool, which serves nothing yet."""
    _change(model, "upgrade", {"pool_id": pool}, url=url, config=config)


@pools_cli.command("switch")
def switch(model: Model, force: Force = False, url: Url = None, config: Config = None) -> None:
    """Serve from the pool that is coming, in all gateways within two seconds."""
    _change(model, "switch", {"force": force}, url=url, config=config)


@pools_cli.command("rollback")
def roll_back(model: Model, force: Force = False, url: Url = None, config: Config = None) -> None:
    """Give up the pool that is coming; after a switch, serve from the one before."""
    _change(model, "rollback", {"force": force}, url=url, config=config)


def _change(
    model: str, what: str, body: dict[str, Any], *, url: str | None, config: Config
) -> None:
    with own_errors():
        pools = _admin(config, url).post(f"/pools/{model}/{what}", body)
    for line in _lines(pools):
        typer.echo(line)


def _admin(config: Config, url: str | None) -> Admin:
    settings, _ = load(config)
    return Admin.of(settings, url)


def _lines(pools: dict[str, Any]) -> list[str]:
    """Return a line for each pool that has a state or workers."""
    states = {pools[state]: state for state in ("previous", "coming", "serving") if pools[state]}
    workers, progress = pools["workers"], pools["progress"]
    lines = []
    for pool_id in sorted(
        sorted({*states, *workers}), key=lambda each: states.get(each, "-"), reverse=True
    ):
        held = workers.get(pool_id, 0)
        fields = [pools["model"], pool_id, states.get(pool_id, "-"), f"{held} workers"]
        if progress is not None and progress["pool_id"] == pool_id:
            fields.append(_progress(progress))
        lines.append("\t".join(fields))
    return lines or [f"{pools['model']}\tno pool"]


def _progress(progress: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(progress["updated_at"], tz=UTC).strftime("%H:%M:%SZ")
    return (
        f"{progress['ready_share']:.1%} of the requests ready, {progress['ready_tasks']} of "
        f"{progress['tasks']} tasks, {progress['failed_tasks']} failed, at {at}"
    )
