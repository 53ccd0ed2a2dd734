"""`loragen secrets`: the versions of the secrets that a local start keeps; none is ever shown.

A rotation is `add`, restart, `use`, restart, and once the gateway says that all is renewed
`retire`, restart.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from config.admin import Admin
from config.command import Config, load, own_errors
from config.secret_store import SecretStore
from config.settings import Settings
from loragen.errors import ConfigError, LoragenError
from loragen.secret_versions import ROTATED, parse_versions, version_id

secrets_cli = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="master_secret or encryption_key.")]
Version = Annotated[str, typer.Argument(help="Id of the version, as `list` shows it.")]
Url = Annotated[
    str | None, typer.Option(help="The admin API; default: of this configuration's stack.")
]

_NEWEST: Final = "new values"
_OLDER: Final = "what is there"


@secrets_cli.command("list")
def list_versions(config: Config = None) -> None:
    """List the versions that are kept, by their ids, and what each is used for."""
    with own_errors():
        settings, _ = load(config)
        for name in ROTATED:
            for number, each in enumerate(_kept(settings, name)):
                typer.echo(f"{name}\t{version_id(each)}\t{_OLDER if number else _NEWEST}")


@secrets_cli.command()
def add(name: Name, config: Config = None) -> None:
    """Make a version, which is known from the next start on and used for nothing new yet.

    The first version of a secret is used at once.
    """
    with own_errors():
        settings, _ = load(config)
        made = SecretStore.make_value()
        _change(settings, name, lambda versions: [*versions, made])
    typer.echo(f"{name}: made version {version_id(made)}; restart every gateway")


@secrets_cli.command()
def use(name: Name, version: Version, config: Config = None) -> None:
    """Use a version for what is new; every gateway must know it by now."""
    with own_errors():
        settings, _ = load(config)

        def first(versions: Sequence[bytes]) -> list[bytes]:
            chosen = _chosen(name, versions, version)
            return [chosen, *(each for each in versions if each != chosen)]

        _change(settings, name, first)
    typer.echo(f"{name}: version {version} is for what is new; restart every gateway")


@secrets_cli.command()
def retire(
    name: Name,
    version: Version,
    url: Url = None,
    force: Annotated[
        bool, typer.Option("--force", help="Although something may need the version still.")
    ] = False,
    config: Config = None,
) -> None:
    """Forget a version that nothing needs any more, as the running gateway says."""
    with own_errors():
        settings, _ = load(config)
        versions = _kept(settings, name)
        chosen = _chosen(name, versions, version)
        if chosen == versions[0]:
            raise ConfigError(f"{name}: version {version} is the one for what is new")
        if not force:
            _require_renewed(Admin.of(settings, url).get("/secrets"), name, version_id(versions[0]))
        _change(settings, name, lambda held: [each for each in held if each != chosen])
    typer.echo(f"{name}: version {version} is retired; restart every gateway")


def _require_renewed(shown: dict[str, Any], name: str, newest: str) -> None:
    held = {each["name"]: each["versions"] for each in shown["data"]}.get(name, [])
    renewal = shown["renewal"] or {}
    if held[:1] != [newest]:
        raise LoragenError(f"{name}: the gateway does not use version {newest} yet: restart it")
    if renewal.get("status") != "done":
        raise LoragenError("the gateway still renews what is stored: try again in a while")
    if renewal.get("unreadable"):
        raise LoragenError(
            f"{renewal['unreadable']} stored values open with no version that the gateway holds"
        )


def _kept(settings: Settings, name: str) -> tuple[bytes, ...]:
    """Return the versions of a secret that this machine keeps, none where it keeps no such secret.

    Raises:
        ConfigError: it has no versions, or the environment gives it.
    """
    if name not in ROTATED:
        raise ConfigError(f"{name!r} has no versions: {' or '.join(ROTATED)} has")
    if getattr(settings, name) is not None:
        raise ConfigError(f"{name} is given by the environment: change it there")
    kept = SecretStore(settings.state_dir).optional(name, None)
    return tuple(each for text in kept.values() for each in parse_versions(text, name=name))


def _chosen(name: str, versions: Sequence[bytes], version: str) -> bytes:
    for each in versions:
        if version_id(each) == version:
            return each
    raise ConfigError(f"{name} has no version {version!r}: see loragen secrets list")


def _change(
    settings: Settings, name: str, change: Callable[[Sequence[bytes]], Sequence[bytes]]
) -> None:
    versions = change(_kept(settings, name))
    text = "\n".join(each.hex() for each in versions)
    SecretStore(settings.state_dir).replace(name, text)
