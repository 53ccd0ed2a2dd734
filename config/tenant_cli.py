"""`loragen tenants` and `loragen keys`: what an operator does to tenants of a running gateway."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from config.admin import Admin
from config.command import Config, load, own_errors
from loragen.errors import ConfigError
from loragen.limits import Limits

LIMITS: Final = tuple(Limits.model_fields)

tenants_cli = typer.Typer(no_args_is_help=True)
keys_cli = typer.Typer(no_args_is_help=True)

Url = Annotated[
    str | None, typer.Option(help="The admin API; default: of this configuration's stack.")
]
TenantOption = Annotated[str, typer.Option("--tenant", help="Id of the tenant.")]
TenantArgument = Annotated[str, typer.Argument(help="Id of the tenant.")]

_DAY_SECONDS: Final = 86_400


@tenants_cli.command("create")
def create_tenant(tenant: TenantArgument, url: Url = None, config: Config = None) -> None:
    """Make a tenant; it has no key yet."""
    with own_errors():
        _show(_admin(config, url).post("/tenants", {"id": tenant}))


@tenants_cli.command("list")
def list_tenants(url: Url = None, config: Config = None) -> None:
    """List all tenants, one a line."""
    with own_errors():
        for tenant in _admin(config, url).get("/tenants")["data"]:
            typer.echo(f"{tenant['id']}\t{_time(tenant['created_at'])}")


@tenants_cli.command("show")
def show_tenant(tenant: TenantArgument, url: Url = None, config: Config = None) -> None:
    """Show a tenant."""
    with own_errors():
        _show(_admin(config, url).get(f"/tenants/{tenant}"))


@tenants_cli.command("set")
def set_tenant(
    tenant: TenantArgument,
    force_prompt: Annotated[
        bool | None,
        typer.Option(
            "--force-prompt/--no-force-prompt", help="Serve without recipes, or with them again."
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help=f"NAME=NUMBER, or NAME=none; may be repeated. {', '.join(LIMITS)}."),
    ] = None,
    url: Url = None,
    config: Config = None,
) -> None:
    """Change what is given of a tenant."""
    with own_errors():
        body: dict[str, Any] = {}
        if force_prompt is not None:
            body["force_prompt"] = force_prompt
        if limit:
            body["limits"] = dict(map(_limit, limit))
        _show(_admin(config, url).patch(f"/tenants/{tenant}", body))


@tenants_cli.command("usage")
def export_usage(
    since: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD of UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day; default: today.")] = None,
    url: Url = None,
    config: Config = None,
) -> None:
    """Print what all tenants were served, a line of JSON for each day, mode and task."""
    with own_errors():
        given = {"since": since, "until": until}
        query = {name: day for name, day in given.items() if day is not None}
        for line in _admin(config, url).lines("/usage", query):
            typer.echo(line)


@tenants_cli.command("delete")
def delete_tenant(
    tenant: TenantArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = None,
    config: Config = None,
) -> None:
    """Delete a tenant with its keys, tasks, names, recipes and counts."""
    with own_errors():
        admin = _admin(config, url)
        if not yes:
            typer.confirm(f"delete tenant {tenant} and everything it has?", abort=True)
        admin.delete(f"/tenants/{tenant}")
    typer.echo(f"tenant {tenant} is deleted")


@keys_cli.command("create")
def create_key(
    tenant: TenantOption,
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, help="Default: it does not expire.")
    ] = None,
    url: Url = None,
    config: Config = None,
) -> None:
    """Make a key and print it, once; a tenant that does not exist is made first."""
    with own_errors():
        admin = _admin(config, url)
        if admin.ensure_tenant(tenant):
            typer.echo(f"tenant {tenant} is new", err=True)
        lifetime = None if expires_in_days is None else expires_in_days * _DAY_SECONDS
        key = admin.post(f"/tenants/{tenant}/keys", {"expires_in_seconds": lifetime})
        typer.echo(f"key {key['id']} of tenant {tenant}; it is not shown again:", err=True)
        typer.echo(key["key"])


@keys_cli.command("list")
def list_keys(tenant: TenantOption, url: Url = None, config: Config = None) -> None:
    """List a tenant's keys, one a line: id, when made, whether it still opens anything."""
    with own_errors():
        for key in _admin(config, url).get(f"/tenants/{tenant}/keys")["data"]:
            typer.echo(f"{key['id']}\t{_time(key['created_at'])}\t{_state(key)}")


@keys_cli.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="Id of the key: what stands behind lg_.")],
    tenant: TenantOption,
    url: Url = None,
    config: Config = None,
) -> None:
    """Revoke a key, in all gateways within two seconds."""
    with own_errors():
        _admin(config, url).delete(f"/tenants/{tenant}/keys/{key}")
    typer.echo(f"key {key} is revoked")


def _admin(config: Config, url: str | None) -> Admin:
    settings, _ = load(config)
    return Admin.of(settings, url)


def _limit(text: str) -> tuple[str, int | None]:
    name, _, value = text.partition("=")
    if name not in LIMITS or not (value.isdigit() or value == "none"):
        raise ConfigError(f"--limit {text}: give NAME=NUMBER or NAME=none, of {', '.join(LIMITS)}")
    return name, None if value == "none" else int(value)


def _show(answer: dict[str, Any]) -> None:
    typer.echo(json.dumps(answer, indent=2))


def _state(key: dict[str, Any]) -> str:
    if key["revoked_at"] is not None:
        return f"revoked {_time(key['revoked_at'])}"
    if key["expires_at"] is not None:
        return f"expires {_time(key['expires_at'])}"
    return "valid"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
