"""What is told of a model folder before anything starts from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.check import file_problems
from config.edge_model import EdgeModelSettings
from config.settings import Settings

TEMPLATE = "{{ messages }}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with all it needs."""
    folder = tmp_path / "edge"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def problems(model: Path, **fields: Any) -> str:
    edge = EdgeModelSettings.model_validate({"name": "a", "model": model, **fields})
    return "\n".join(file_problems(Settings(edge_models=(edge,))))


def test_a_whole_folder_has_none(folder: Path) -> None:
    assert problems(folder) == ""


@pytest.mark.parametrize("template", [TEMPLATE, [{"name": "default", "template": TEMPLATE}]])
def test_the_template_may_stand_among_the_tokenizers_settings(folder: Path, template: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert problems(folder) == ""


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _half_downloaded(folder: Path) -> None:
    shards = {"a": "model.safetensors", "b": "model-2.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))


def _short_context(folder: Path) -> None:
    config = {"max_position_embeddings": 512, "rope_parameters": {"rope_type": "default"}}
    (folder / "config.json").write_text(json.dumps(config))


def _no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_no_weights, "model: no weights"),
        (_half_downloaded, "1 of 2 weight files are not in"),
        (_short_context, "max_model_len: 1024 is more than the model's 512"),
        (_no_template, "name a Jinja file"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json in"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, harm: Callable[[Path], None], says: str) -> None:
    harm(folder)
    assert says in problems(folder)


@pytest.mark.parametrize(
    "scaling",
    [{"rope_scaling": {"type": "yarn"}}, {"rope_parameters": {"rope_type": "yarn"}}],
)
def test_scaled_positions_are_left_to_the_engine(folder: Path, scaling: dict[str, Any]) -> None:
    config = {"max_position_embeddings": 512, **scaling}
    (folder / "config.json").write_text(json.dumps(config))
    assert problems(folder) == ""


def test_a_generator_needs_a_compiled_template(folder: Path) -> None:
    generator = folder.parent / "generator"
    generator.mkdir()
    (generator / "config.json").touch()
    assert "of no known family" in problems(folder, generator=generator)
    assert "qwen9" in problems(folder, generator=generator, compiled_template="qwen9")
    assert problems(folder, generator=generator, compiled_template="qwen3") == ""
    (folder / "compiled_template.jinja").write_text(TEMPLATE)
    assert problems(folder, generator=generator) == ""


def test_a_pool_is_a_file_beside_the_model_and_needs_a_compiled_template(folder: Path) -> None:
    pool = folder.parent / "pool.safetensors"
    assert "`loragen bootstrap-pool` makes one" in problems(
        folder, pool=pool, compiled_template="qwen3"
    )
    pool.touch()
    assert problems(folder, pool=pool, compiled_template="qwen3") == ""
    assert "leave pool out" in problems(folder, pool=pool)
    (folder / "compiled_template.jinja").write_text(TEMPLATE)
    assert problems(folder, pool=pool) == ""
    among = pool.rename(folder / "pool.safetensors")
    assert "among the model's weights" in problems(folder, pool=among)


def test_a_hub_id_is_told_how_to_become_a_folder() -> None:
    assert "hf download org/model --local-dir" in problems(Path("org/model"))


def test_a_relative_path_is_shown_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"no config.json in {tmp_path / 'edge'}" in problems(Path("edge"))


def test_files_of_a_worker_elsewhere_are_not_looked_for() -> None:
    assert problems(Path("/none"), worker_urls=["http://10.0.0.1:8001"]) == ""


def test_a_generator_that_reads_pairs_needs_its_edge_model(folder: Path, tmp_path: Path) -> None:
    generator = tmp_path / "generator"
    generator.mkdir()
    config = {"edge": "../nowhere", "router": {"pair_experts": 2}}
    (generator / "config.json").write_text(json.dumps(config))
    edge = EdgeModelSettings(name="a", model=folder, generator=generator, worker_urls=("http://w",))
    (problem,) = file_problems(Settings(edge_models=(edge,)))
    assert "none is in" in problem
    config["edge"] = str(folder)
    (generator / "config.json").write_text(json.dumps(config))
    assert not file_problems(Settings(edge_models=(edge,)))
