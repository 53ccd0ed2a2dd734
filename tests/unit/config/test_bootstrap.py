"""`loragen bootstrap-pool`: what it refuses at once, and the file it writes."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.cli import cli
from config.load import load_settings
from loragen.errors import ConfigError
from loragen.families import family_template
from loragen.method.pool import Pool, edge_fingerprint
from tests.fakes.tiny import TinyEdge
from workers.launch import worker_spec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyEdge.make(tmp_path_factory.mktemp("tiny")).model


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A model folder of the test's own."""
    return shutil.copytree(made, tmp_path / "edge")


def refused(model: Path, out: Path, *options: str) -> tuple[int, str]:
    arguments = ["bootstrap-pool", "--model", str(model), "--out", str(out), *options]
    result = CliRunner().invoke(cli, arguments)
    assert not out.is_file() or out.stat().st_size == 0
    return result.exit_code, result.output


def test_the_pool_is_one_that_a_worker_of_the_model_takes(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pool.safetensors"
    (folder / "compiled_template.jinja").unlink()
    arguments = ["bootstrap-pool", "--model", str(folder), "--out", str(out), "--columns", "4"]
    result = CliRunner().invoke(cli, [*arguments, "--compiled-template", "qwen3"])
    assert result.exit_code == 0, capfd.readouterr().err
    assert f"wrote {out}: 3 layers, 4 experts each" in capfd.readouterr().out
    config = tmp_path / "a.yaml"
    model = f"{{name: a, model: {folder}, pool: {out}, compiled_template: qwen3}}"
    config.write_text(f"edge_models: [{model}]")
    spec, pool = worker_spec(load_settings([config]).edge_model("a")), Pool.load(out)
    assert spec.pool == out
    assert pool.spec.template_hash == spec.template_hash == family_template("qwen3").hash
    assert pool.spec.edge_fingerprint == edge_fingerprint(folder)
    assert pool.spec.columns == 4


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    out = tmp_path / "pool.safetensors"
    status, said = refused(tmp_path, out)
    assert (status, f"no config.json in {tmp_path}" in said) == (3, True)
    status, said = refused(Path("org/model"), out)
    assert (status, "hf download org/model" in said) == (3, True)


def test_a_model_of_no_family_needs_its_compiled_template(folder: Path, tmp_path: Path) -> None:
    (folder / "compiled_template.jinja").unlink()
    out = tmp_path / "pool.safetensors"
    status, said = refused(folder, out)
    assert (status, "name the file as --compiled-template" in said) == (3, True)
    status, said = refused(folder, out, "--compiled-template", "qwen9")
    assert (status, "'qwen9'" in said) == (3, True)
    status, said = refused(folder, out, "--chat-template", str(tmp_path / "none.jinja"))
    assert (status, "chat_template: no file" in said) == (3, True)


def test_the_file_goes_to_a_place_of_its_own(folder: Path, tmp_path: Path) -> None:
    status, said = refused(folder, folder / "pool.safetensors")
    assert (status, "would be loaded as weights" in said) == (2, True)
    status, said = refused(folder, tmp_path / "none" / "pool.safetensors")
    assert (status, f"no folder {tmp_path / 'none'}" in said) == (2, True)
    (tmp_path / "taken").touch()
    status, said = refused(folder, tmp_path / "taken")
    assert (status, "exists" in said) == (2, True)


def test_what_only_the_model_can_refuse_ends_with_its_status(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _ = refused(folder, tmp_path / "pool.safetensors", "--columns", "65")
    assert (status, capfd.readouterr().err.splitlines()[-1]) == (
        2, "loragen: columns: 65 is more than the model's linears have, 64",
    )  # fmt: skip


def test_generator_and_pool_are_not_both_taken(tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text("edge_models: [{name: a, model: m, generator: g, pool: p}]")
    with pytest.raises(ConfigError, match=r"edge_models\.0: .*generator or pool, not both"):
        load_settings([config])
