"""Check: what is wrong with a configuration before anything is started from it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from config.edge_model import EdgeModelSettings
from config.settings import Settings
from loragen.errors import ArtifactCorrupt
from loragen.families import compiled_template
from loragen.generator_config import reads_edge
from loragen.own_template import OwnTemplate

WEIGHTS: Final = ("*.safetensors", "*.bin")


def file_problems(settings: Settings) -> list[str]:
    """Return a line for each file that is missing and each file that contradicts the settings."""
    return [line for model in settings.edge_models for line in _missing(model)]


def _missing(model: EdgeModelSettings) -> Iterator[str]:
    where = f"edge_models {model.name}"
    if not model.worker_urls:  # else its files are where its workers are
        yield from (f"{where}: {line}" for line in edge_problems(model))
    if model.generator is not None and not (model.generator / "config.json").is_file():
        yield f"{where}: generator: no config.json in {model.generator.absolute()}"
    elif model.generator is not None:
        yield from (f"{where}: {line}" for line in _missing_edge(model.generator))
    if model.pool is not None:
        yield from (f"{where}: {line}" for line in _pool_problems(model.pool, model.model))


def _missing_edge(generator: Path) -> Iterator[str]:
    config = _json(generator / "config.json")
    if reads_edge(config):
        edge = generator / config.get("edge", "")
        if not (edge / "config.json").is_file():
            yield f"generator: it reads with the edge model, and none is in {edge.resolve()}"


def _pool_problems(pool: Path, folder: Path) -> Iterator[str]:
    if not pool.is_file():
        yield f"pool: no file {pool.absolute()}; `loragen bootstrap-pool` makes one"
    elif pool.resolve().parent == folder.resolve():
        yield f"pool: {pool.absolute()} is among the model's weights, and would be loaded as such"


def edge_problems(model: EdgeModelSettings) -> Iterator[str]:
    """Yield a line for each thing that is wrong with an edge model's folder and templates."""
    folder = model.model.absolute()
    if not folder.exists() and _is_hub_id(model.model):
        yield (
            f"model: no folder {folder}; a hub id is not downloaded: "
            f"`hf download {model.model} --local-dir FOLDER`, and name that folder"
        )
    elif not (folder / "config.json").is_file():
        yield f"model: no config.json in {folder}"
    else:
        yield from _excess_context(folder, model.max_model_len)
        yield from _missing_weights(folder)
        yield from _missing_template(folder, model.template_path)
        yield from _missing_compiled_template(model)


def _excess_context(folder: Path, wanted: int) -> Iterator[str]:
    config = _json(folder / "config.json")
    limit = config.get("max_position_embeddings")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    # Scaled positions reach further than the number says.
    is_scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
    if isinstance(limit, int) and wanted > limit and not is_scaled:
        yield f"max_model_len: {wanted} is more than the model's {limit}"


def _missing_weights(folder: Path) -> Iterator[str]:
    index = _json(folder / "model.safetensors.index.json")
    shards = set(index.get("weight_map", {}).values())
    gone = sorted(shard for shard in shards if not (folder / shard).is_file())
    if gone:
        yield f"model: {len(gone)} of {len(shards)} weight files are not in {folder}: {gone[0]} ..."
    elif not any(found for pattern in WEIGHTS for found in folder.glob(pattern)):
        yield f"model: no weights ({', '.join(WEIGHTS)}) in {folder}"


def _missing_template(folder: Path, path: Path | None) -> Iterator[str]:
    if path is not None and not path.is_file():
        yield f"chat_template: no file {path.absolute()}"
    elif path is None and not _json(folder / "tokenizer_config.json").get("chat_template"):
        yield (
            f"chat_template: {folder} has no chat_template.jinja, and none in "
            "tokenizer_config.json; name a Jinja file"
        )


def _missing_compiled_template(model: EdgeModelSettings) -> Iterator[str]:
    if model.pool_file is None:
        return
    try:
        own = OwnTemplate.load(model.model, model.chat_template)
        if compiled_template(own, model.model, model.compiled_template) is None:
            yield (
                "compiled_template: the chat template is of no known family; name a Jinja file, or "
                f"leave {'pool' if model.generator is None else 'generator'} out"
            )
    except ArtifactCorrupt as error:
        yield str(error)


def _json(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_hub_id(path: Path) -> bool:
    return not path.is_absolute() and len(path.parts) == 2
