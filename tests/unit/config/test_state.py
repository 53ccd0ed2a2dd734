"""State folder, secrets, logs, temporary folders: what a local start keeps and cleans."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from pydantic import SecretStr

from config import state_folder as module
from config.child_log import begin_log, last_message
from config.secret_store import SecretStore
from config.state_folder import StateFolder
from config.temp_folder import SOCKET_PATH_CHARS, temp_folder
from loragen.errors import ConfigError, StartupError


def test_a_second_start_is_told_who_runs(tmp_path: Path) -> None:
    with (
        StateFolder.open(tmp_path),
        pytest.raises(StartupError, match=f"process {os.getpid()}"),
        StateFolder.open(tmp_path),
    ):
        pass
    with StateFolder.open(tmp_path):
        pass


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEEDED_MIB", 1 << 40)
    with pytest.raises(ConfigError, match="free disk"), StateFolder.open(tmp_path):
        pass


def test_what_runs_is_said_privately_and_only_while_it_does(tmp_path: Path) -> None:
    with StateFolder.open(tmp_path) as state:
        state.say_running({"pids": {"a": 1}})
        assert json.loads(state.run_file.read_text()) == {"pids": {"a": 1}}
        assert state.run_file.stat().st_mode & 0o777 == 0o600
    assert not state.run_file.exists()


def test_the_temporary_folder_of_a_killed_start_is_removed(tmp_path: Path) -> None:
    left, other = tmp_path / "lg-left", tmp_path / "important"
    for folder in (left, other):
        folder.mkdir()
        (tmp_path / "run.json").write_text(json.dumps({"temp_dir": str(folder)}))
        with StateFolder.open(tmp_path):
            pass
    assert (left.exists(), other.exists()) == (False, True)


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    store = SecretStore(tmp_path)
    value = store.value("ray_token", None)
    assert len(bytes.fromhex(value)) == 32
    assert SecretStore(tmp_path).value("ray_token", None) == value
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert [p.stat().st_mode & 0o777 for p in (tmp_path / "secrets").iterdir()] == [0o600]


def test_a_given_secret_is_not_written(tmp_path: Path) -> None:
    assert SecretStore(tmp_path).value("ray_token", SecretStr("given")) == "given"
    assert not (tmp_path / "secrets").exists()


@pytest.mark.parametrize(("mode", "text", "said"), [(0o644, "x", "chmod"), (0o600, "", "empty")])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, mode: int, text: str, said: str) -> None:
    store = SecretStore(tmp_path)
    store.value("ray_token", None)
    path = tmp_path / "secrets" / "ray_token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=said):
        store.value("ray_token", None)


def test_the_last_log_stays_beside_the_fresh_one(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    begin_log(log)
    log.write_text("old")
    begin_log(log)
    assert (log.read_text(), (tmp_path / "a.log.1").read_text()) == ("", "old")


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", None),
        ("\n \n", None),
        ("first\nlast\n\n", "last"),
        ('{"message": "no file", "level": "CRITICAL"}\n', "no file"),
        ('{"other": 1}', '{"other": 1}'),
        ("x" * 20_000, "x" * 400),
    ],
)
def test_the_last_thing_a_log_says(tmp_path: Path, text: str, last: str | None) -> None:
    log = tmp_path / "a.log"
    log.write_text(text)
    assert last_message(log) == last


def test_no_log_says_nothing(tmp_path: Path) -> None:
    assert last_message(tmp_path / "none.log") is None


@pytest.mark.parametrize("parent_chars", [30, 100])
def test_temporary_folders_leave_room_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent_chars: int
) -> None:
    parent = tmp_path / ("x" * parent_chars)
    parent.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    with temp_folder("lg-", behind=60) as folder:
        assert len(str(folder)) + 60 <= SOCKET_PATH_CHARS
        (folder / "file").touch()
    assert not folder.exists()
