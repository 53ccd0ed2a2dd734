"""Plan: which generator actors a configuration needs, one deployment per cloud model.

Edge models whose generators read the same cloud model share its actors. Everything wrong with the
files that can be seen without torch is refused here, before Ray starts.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from config.settings import Settings
from loragen.errors import ArtifactCorrupt, ConfigError

GENERATOR_FILES: Final = ("config.json", "generator.safetensors", "pool.safetensors")


@dataclass(frozen=True, slots=True)
class CloudPlan:
    """One deployment: its name, and the generator folder of each edge model it compiles for."""

    deployment: str
    folders: Mapping[str, Path]


def plan_clouds(settings: Settings) -> tuple[CloudPlan, ...]:
    """Group the configured generators by their cloud model.

    Raises:
        ConfigError: no edge model has a generator.
        ArtifactCorrupt: a generator or cloud model file is missing or unreadable.
    """
    folders = {
        model.name: model.generator.resolve()
        for model in settings.edge_models
        if model.generator is not None
    }
    if not folders:
        raise ConfigError("edge_models: none has a generator, so there is nothing to compile with")
    by_cloud: dict[Path, dict[str, Path]] = {}
    for edge_model, folder in folders.items():
        by_cloud.setdefault(_cloud_folder(folder), {})[edge_model] = folder
    names = Counter(_name(cloud) for cloud in by_cloud)
    return tuple(
        CloudPlan(_name(cloud) + (_suffix(cloud) if names[_name(cloud)] > 1 else ""), heads)
        for cloud, heads in by_cloud.items()
    )


def _cloud_folder(folder: Path) -> Path:
    for name in GENERATOR_FILES:
        if not (folder / name).is_file():
            raise ArtifactCorrupt(f"no {name} in generator folder {folder}")
    try:
        reference: str = json.loads((folder / "config.json").read_text(encoding="utf-8"))["cloud"]
        cloud = (folder / reference).resolve()
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactCorrupt(f"{folder / 'config.json'} names no cloud model") from error
    if not (cloud / "config.json").is_file():
        raise ArtifactCorrupt(f"no cloud model in {cloud}, which {folder / 'config.json'} names")
    return cloud


def _name(cloud: Path) -> str:
    return "generator-" + re.sub(r"[^A-Za-z0-9_.-]", "-", cloud.name)


def _suffix(cloud: Path) -> str:
    return "-" + sha256(str(cloud).encode()).hexdigest()[:6]
