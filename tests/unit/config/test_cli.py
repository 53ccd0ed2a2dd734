"""`loragen config` and what `loragen up` refuses before it starts anything."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from config.cli import PAGE, cli
from config.command import DEMO
from config.ports import free_port
from config.reference import configuration_page
from config.settings import SECRET_FIELDS

ROOT = Path(__file__).parents[3]
EXAMPLE = "config/several-models.yaml"


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORAGEN_STATE_DIR", str(tmp_path / "state"))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def write(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "chat_template.jinja", "model.safetensors"):
        (folder / name).touch()
    return folder


def test_a_good_file_is_ok_and_missing_folders_are_warnings(tmp_path: Path) -> None:
    path = write(tmp_path, "edge_models: [{name: a, model: /none, generator: /nor}]")
    result = run("config", "check", path)
    assert result.exit_code == 0
    assert f"{path}: ok" in result.output
    assert "edge_models a: model: no config.json in /none" in result.output
    assert "edge_models a: generator: no config.json in /nor" in result.output


def test_the_example_of_several_models_lacks_only_the_model_to_download() -> None:
    result = run("config", "check", EXAMPLE)
    warnings = [line for line in result.output.splitlines() if "warning" in line]
    assert result.exit_code == 0
    assert [line.split(": ")[2] for line in warnings] == ["edge_models qwen"]
    assert (ROOT / EXAMPLE).read_text().count("port:") == 2


def test_each_problem_has_a_line_that_names_its_field(tmp_path: Path) -> None:
    result = run("config", "check", write(tmp_path, "server: {port: x, prt: 1}"), DEMO)
    assert result.exit_code == 2
    lines = result.output.splitlines()
    assert any("server.port" in line for line in lines)
    assert any("server.prt" in line for line in lines)
    assert any(line == f"{DEMO}: ok" for line in lines)


def test_show_masks_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRET_FIELDS:
        monkeypatch.setenv(f"LORAGEN_{name.upper()}", "redis://hunter2")
    result = run("config", "show")
    assert result.exit_code == 0
    assert json.loads(result.output)["edge_models"][0]["name"] == "demo"
    assert "hunter2" not in result.output


def test_the_page_of_settings_is_in_step_with_the_schema() -> None:
    assert (ROOT / PAGE).read_text() == configuration_page(), "run: python -m config docs"


def test_up_names_a_missing_file(tmp_path: Path) -> None:
    path = write(tmp_path, "edge_models: [{name: a, model: /none}]")
    result = run("up", "--config", path)
    assert result.exit_code == 3
    assert result.output == "loragen: edge_models a: model: no config.json in /none\n"


def test_up_needs_something_to_serve(tmp_path: Path) -> None:
    result = run("up", "--config", write(tmp_path, "server: {port: 1}"))
    assert (result.exit_code, "edge_models" in result.output) == (2, True)


def test_up_names_an_unreadable_examples_file(tmp_path: Path) -> None:
    result = run("up", "--config", DEMO, "--examples", tmp_path / "none.json")
    assert (result.exit_code, "--examples" in result.output) == (2, True)


def test_up_names_a_busy_port_and_its_setting(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "edge")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = f"{{server: {{port: {port}}}, edge_models: [{{name: a, model: {model}}}]}}"
        result = run("up", "--config", write(tmp_path, text))
    assert result.exit_code == 2
    assert result.output.startswith(f"loragen: server.port: port {port} is in use")
    assert len(result.output.splitlines()) == 1


def test_up_names_two_settings_with_one_port(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "edge")
    text = f"{{server: {{port: 18999}}, edge_models: [{{name: a, model: {model}, port: 18999}}]}}"
    result = run("up", "--config", write(tmp_path, text))
    assert (result.exit_code, "is also server.port" in result.output) == (2, True)


def test_up_names_a_state_folder_it_cannot_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_folder(tmp_path / "edge")
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORAGEN_STATE_DIR", str(tmp_path / "file" / "state"))
    result = run("up", "--config", write(tmp_path, f"edge_models: [{{name: a, model: {model}}}]"))
    assert (result.exit_code, "state_dir" in result.output) == (2, True)


def test_up_says_when_the_given_redis_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_folder(tmp_path / "edge")
    port = free_port()
    monkeypatch.setenv("LORAGEN_REDIS_URL", f"redis://:hunter2@127.0.0.1:{port}/0")
    text = f"{{server: {{port: {port}}}, edge_models: [{{name: a, model: {model}}}]}}"
    result = run("up", "--config", write(tmp_path, text))
    assert result.exit_code == 2
    assert result.output == f"loragen: redis_url: nothing answers at 127.0.0.1:{port}\n"
