"""The configuration in force: read from files and environment, refused in the operator's words.

Order, strongest first: arguments, environment (`LORAGEN_SERVER__PORT=8080`), secret files in
`/run/secrets`, the YAML files of `LORAGEN_CONFIG` or `--config` (comma-separated, later over
earlier, merged key by key), defaults. Secrets never come from YAML. Unknown keys are errors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict, SettingsError

from config.environment import files_from_environment
from config.settings import SECRET_FIELDS, Settings
from loragen.errors import ConfigError

SECRETS_FOLDER: Final = Path("/run/secrets")


def load_settings(files: Sequence[Path] | None = None, **overrides: Any) -> Settings:
    """Read the configuration; `files` default to those named by LORAGEN_CONFIG.

    Raises:
        ConfigError: a file is missing, holds a secret, or a field is wrong; the message names it.
    """
    paths = list(files) if files is not None else files_from_environment()
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"no configuration file {path}")
        _refuse_secrets(path)
    secrets = str(SECRETS_FOLDER) if SECRETS_FOLDER.is_dir() else None

    class Loaded(Settings):
        model_config = SettingsConfigDict(yaml_file=paths, secrets_dir=secrets)

    try:
        return Loaded(**overrides)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
    except SettingsError as error:  # a section that is not JSON, as LORAGEN_AUTO=off
        raise ConfigError(f"{error}: a section is JSON, or set field by field") from error


def _refuse_secrets(path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of settings")
    for name in SECRET_FIELDS:
        if name in (content or {}):
            raise ConfigError(f"{path}: {name} is a secret: set LORAGEN_{name.upper()} instead")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in item["loc"]) or "settings"
        lines.append(f"{where}: {item['msg']}")
    return "; ".join(lines)
