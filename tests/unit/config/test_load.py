"""Loading the settings: who wins, what is refused, and what the errors name."""

from pathlib import Path

import pytest

from config.load import load_settings
from config.settings import SECRET_FIELDS
from loragen.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    first = write(tmp_path, "a.yaml", "server: {port: 1000, host: 127.0.0.9}")
    second = write(tmp_path, "b.yaml", "server: {port: 2000}")
    settings = load_settings([first, second])
    assert (settings.server.port, settings.server.host) == (2000, "127.0.0.9")


def test_the_environment_wins_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.yaml", "server: {port: 1000, host: 127.0.0.9}")
    monkeypatch.setenv("LORAGEN_SERVER__PORT", "3000")
    monkeypatch.setenv("LORAGEN_CONFIG", str(path))
    settings = load_settings()
    assert (settings.server.port, settings.server.host) == (3000, "127.0.0.9")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("servr: {port: 1}", "servr"),
        ("server: {prt: 1}", "server.prt"),
        ("server: {port: 70000}", "server.port"),
        ("edge_models: [{name: 'a:b', model: m}]", "edge_models.0.name"),
        ("edge_models: [{name: a, model: m}, {name: a, model: n}]", "same name"),
        ("edge_models: [{name: a, model: m, workers: 2}, {name: a-2, model: n}]", "second worker"),
        ("[1, 2]", "mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_settings([write(tmp_path, "a.yaml", text)])


@pytest.mark.parametrize("name", SECRET_FIELDS)
def test_secrets_are_refused_in_yaml(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"LORAGEN_{name.upper()}"):
        load_settings([write(tmp_path, "a.yaml", f"{name}: hunter2")])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load_settings([tmp_path / "nothing.yaml"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LORAGEN_AUTO", "off"),
        ("LORAGEN_EDGE_MODELS", "demo"),
        ("LORAGEN_LIMITS__DEFAULT", "6.0.0"),
    ],
)
def test_a_section_that_is_not_json_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name.removeprefix("LORAGEN_").partition("__")[0].lower()):
        load_settings([])


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "a.yaml", "")

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(ConfigError, match=r"a\.yaml cannot be read: Permission denied"):
        load_settings([path])
