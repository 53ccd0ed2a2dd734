"""Secret store: secrets of a local start, made once and kept in files only their owner can read.

A secret that the environment gives is used as it is and never written down.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from loragen.errors import ConfigError

FOLDER: Final = "secrets"
SECRET_BYTES: Final = 32


class SecretStore:
    """Secrets by name in `<state_dir>/secrets`, as hex."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER

    def value(self, name: str, given: SecretStr | None) -> str:
        """Return the given secret, or the kept one, made on first use.

        Raises:
            ConfigError: the folder cannot be written, or others can read the secret.
        """
        if given is not None:
            return given.get_secret_value()
        path = self._folder / name
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                self._make(path)
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others: run chmod 600 on it")
            text = path.read_text(encoding="ascii").strip()
        except OSError as error:
            raise ConfigError(f"cannot keep secrets in {self._folder}: {error.strerror}") from error
        if not text:
            raise ConfigError(f"{path} is empty: remove it, then another one is made")
        return text

    def kept(self, name: str, given: SecretStr | None) -> str:
        """Return the given secret, or the kept one; none is made.

        Raises:
            ConfigError: it is not kept here, or others can read it.
        """
        if given is None and not (self._folder / name).exists():
            raise ConfigError(
                f"no {name} in {self._folder}: start the stack there, or set LORAGEN_{name.upper()}"
            )
        return self.value(name, given)

    def optional(self, name: str, given: SecretStr | None) -> dict[str, str]:
        """Return the variable of a secret that is given or kept, and none where it is neither.

        Raises:
            ConfigError: others can read it.
        """
        if given is None and not (self._folder / name).exists():
            return {}
        return {f"LORAGEN_{name.upper()}": self.value(name, given)}

    def replace(self, name: str, text: str) -> None:
        """Keep another value of a secret, at once or not at all.

        Raises:
            ConfigError: the folder cannot be written.
        """
        path = self._folder / name
        aside = path.with_name(f".{name}.{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(
                os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
            ) as file:
                file.write(text)
            aside.replace(path)
        except OSError as error:
            raise ConfigError(f"cannot keep secrets in {self._folder}: {error.strerror}") from error

    @staticmethod
    def make_value() -> bytes:
        """Return a secret that nobody has."""
        return secrets.token_bytes(SECRET_BYTES)

    def _make(self, path: Path) -> None:
        # Written aside and linked into place: of two processes that make it at once, one wins.
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(self.make_value().hex())
        with suppress(FileExistsError):
            path.hardlink_to(aside)
        aside.unlink()
