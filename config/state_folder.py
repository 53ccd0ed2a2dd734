"""State folder: what a local start keeps between starts, and who uses it at the moment."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.child_log import begin_log
from loragen.errors import ConfigError, StartupError

NEEDED_MIB: Final = 64
RUN_FILE: Final = "run.json"


@dataclass(frozen=True, slots=True)
class StateFolder:
    """`state_dir` while this process alone uses it."""

    path: Path

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> "Iterator[StateFolder]":
        """Make and lock the folder; give it back at the end.

        Raises:
            ConfigError: it cannot be written, or the disk is full.
            StartupError: another start uses it.
        """
        path = path.resolve()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(f"state_dir: cannot write {path}: {error.strerror}") from error
        try:
            _take(lock, path)
            _require_space(path)
            state = cls(path)
            state.remove_leftovers()
            try:
                yield state
            finally:
                state.run_file.unlink(missing_ok=True)
        finally:
            os.close(lock)

    @property
    def run_file(self) -> Path:
        """The file that says what runs, for tools and tests; there while something does."""
        return self.path / RUN_FILE

    def log(self, name: str) -> Path:
        """Return the fresh log file of a child."""
        folder = self.path / "logs"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{name.replace(' ', '-').replace('/', '-')}.log"
        begin_log(path)
        return path

    def say_running(self, content: dict[str, Any]) -> None:
        """Replace the content of `run.json`."""
        aside = self.run_file.with_suffix(".new")
        aside.touch(mode=0o600)
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        aside.replace(self.run_file)

    def remove_leftovers(self) -> None:
        """Remove what a start that was killed could not."""
        try:
            temp = Path(json.loads(self.run_file.read_text(encoding="utf-8"))["temp_dir"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if (
            temp.is_dir()
            and temp.name.startswith("lg-")
            and temp.stat().st_uid == self.path.stat().st_uid
        ):
            shutil.rmtree(temp, ignore_errors=True)
        self.run_file.unlink(missing_ok=True)


def running(state_dir: Path) -> dict[str, Any]:
    """Return what `run.json` says of a running stack; empty where none runs."""
    try:
        content = json.loads((state_dir / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        raise StartupError(
            f"already running here as process {pid}: stop it, or set LORAGEN_STATE_DIR to another "
            f"folder than {path}"
        ) from error
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _require_space(path: Path) -> None:
    free_mib = shutil.disk_usage(path).free >> 20
    if free_mib < NEEDED_MIB:
        raise ConfigError(
            f"state_dir: {path} needs {NEEDED_MIB} MiB of free disk, found {free_mib} MiB"
        )
