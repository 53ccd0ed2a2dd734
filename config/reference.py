"""Reference: the page of all settings, written from the schema."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.edge_model import EdgeModelSettings
from config.section import Section
from config.settings import SECRET_FIELDS, Settings

_HEAD = """\
# Configuration

<!-- Written by `python -m config docs`; a test keeps it in step with the schema. -->

One schema, `config/settings.py`, read by `config/load.py`. Strongest first: environment
(`LORAGEN_SERVER__PORT=8080`), the YAML files of `LORAGEN_CONFIG` or `--config` (comma-separated or
repeated; later ones win, key by key), defaults. Secrets come from the environment or from files in
`/run/secrets`, never from YAML; a local start makes those that are missing. Relative paths start at
the working directory.
`python -m config check FILE` checks a file, `python -m config show` prints what is in force.
"""


def configuration_page() -> str:
    """Return docs/configuration.md."""
    parts = [_HEAD, *_section("Top level", Settings, prefix="")]
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            parts += _section(f"`{name}`", section, prefix=f"{name}.")
    parts += _section("`edge_models`, a list", EdgeModelSettings, prefix="edge_models[].")
    return "\n".join(parts)


def _section(title: str, section: type[BaseModel], *, prefix: str) -> Iterator[str]:
    yield f"## {title}\n"
    if section is not Settings and section.__doc__:
        yield f"{section.__doc__}\n"
    yield "| setting | default | meaning |"
    yield "|---|---|---|"
    for name, field in section.model_fields.items():
        if field.description is None:  # a section of its own
            continue
        yield f"| `{prefix}{name}` | {_default(name, field)} | {field.description} |"
    yield ""


def _default(name: str, field: FieldInfo) -> str:
    if name in SECRET_FIELDS:
        return f"secret: `LORAGEN_{name.upper()}`"
    value: Any = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        fields = value.model_dump()
        return ", ".join(f"`{each}`: {_shown(fields[each])}" for each in fields)
    return _shown(value)


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return f"`{value}`"
