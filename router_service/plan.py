"""Plan: which actors a configuration needs: generators per cloud model, refiners per edge model.

Edge models whose generators read the same cloud model share its actors. Everything wrong with the
files that can be seen without torch is refused here, before Ray starts.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

from config.edge_model import POOL_FILE, EdgeModelSettings
from config.generator import GeneratorSettings
from config.settings import Settings
from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.families import FAMILIES
from loragen.generator_config import reads_edge

GENERATOR_FILES: Final = ("config.json", "generator.safetensors", POOL_FILE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CloudPlan:
    """One deployment: its name, and the generator folder of each edge model it compiles for."""

    deployment: str
    folders: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class RefinerPlan:
    """One deployment: its name, and the edge model whose tasks it refines, with absolute paths."""

    deployment: str
    model: EdgeModelSettings

    @property
    def pool(self) -> Path:
        """The pool file."""
        assert self.model.pool_file is not None
        return self.model.pool_file


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """All deployments but the front."""

    clouds: tuple[CloudPlan, ...]
    """In the order in which they are asked where an edge model has two generators."""
    refiners: tuple[RefinerPlan, ...]

    def cpus(self, options: GeneratorSettings) -> int:
        """Return how many CPUs the actors take."""
        generators = len(self.clouds) * options.replicas * options.threads
        return generators + len(self.refiners) * options.refine_threads


def plan_service(settings: Settings) -> ServicePlan:
    """Return all deployments that a configuration needs.

    Raises:
        ConfigError: there is nothing to compile or refine with.
        ArtifactCorrupt: see `plan_clouds` and `plan_refiners`.
    """
    upgrading = [model for model in settings.edge_models if model.next_generator is not None]
    after = settings.model_copy(
        update={"edge_models": tuple(model.upgraded() for model in upgrading)}
    )
    # The next ones have deployments of their own, so that they come and go alone.
    plan = ServicePlan(
        (*plan_clouds(settings), *map(_as_next, plan_clouds(after))),
        (*plan_refiners(settings), *map(_as_next, plan_refiners(after))),
    )
    if not plan.clouds and not plan.refiners:
        raise ConfigError(
            "edge_models: none has a generator, or a pool and its model here, so there is nothing "
            "to compile or refine with"
        )
    return plan


def plan_refiners(settings: Settings) -> tuple[RefinerPlan, ...]:
    """Return a refiner for each edge model with a pool.

    An edge model that is not on this machine can be compiled for, unless its generator has pair
    experts, but not refined.

    Raises:
        ArtifactCorrupt: a pool without a generator is missing.
    """
    models = []
    for model in settings.edge_models:
        if model.pool_file is None:
            continue
        if model.pool is not None and not model.pool.is_file():
            raise ArtifactCorrupt(f"edge model {model.name!r}: no pool {model.pool}")
        if (model.model / "config.json").is_file():
            models.append(model)
        else:
            logger.warning("edge model not here: no refining", extra={"edge_model": model.name})
    names = Counter(_plain(model.name) for model in models)
    return tuple(
        RefinerPlan(
            f"refiner-{_plain(model.name)}"
            + (_suffix(model.name) if names[_plain(model.name)] > 1 else ""),
            _with_absolute_paths(model),
        )
        for model in models
    )


def plan_clouds(settings: Settings) -> tuple[CloudPlan, ...]:
    """Group the configured generators by their cloud model; none where no edge model has one.

    Raises:
        ArtifactCorrupt: a generator or cloud model file is missing or unreadable.
    """
    folders = {
        model.name: model.generator.resolve()
        for model in settings.edge_models
        if model.generator is not None
    }
    by_cloud: dict[Path, dict[str, Path]] = {}
    for edge_model, folder in folders.items():
        by_cloud.setdefault(_cloud_folder(folder), {})[edge_model] = folder
    names = Counter(_name(cloud) for cloud in by_cloud)
    return tuple(
        CloudPlan(_name(cloud) + (_suffix(cloud) if names[_name(cloud)] > 1 else ""), heads)
        for cloud, heads in by_cloud.items()
    )


_Plan = TypeVar("_Plan", CloudPlan, RefinerPlan)


def _as_next(plan: _Plan) -> _Plan:
    return replace(plan, deployment=plan.deployment + "-next")


def _cloud_folder(folder: Path) -> Path:
    for name in GENERATOR_FILES:
        if not (folder / name).is_file():
            raise ArtifactCorrupt(f"no {name} in generator folder {folder}")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        cloud: Path = (folder / config["cloud"]).resolve()
        edge = (folder / config["edge"]).resolve() if reads_edge(config) else None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactCorrupt(f"{folder / 'config.json'} names no cloud model") from error
    if not (cloud / "config.json").is_file():
        raise ArtifactCorrupt(f"no cloud model in {cloud}, which {folder / 'config.json'} names")
    if edge is not None and not (edge / "config.json").is_file():
        raise ArtifactCorrupt(f"no edge model in {edge}, which the generator {folder} reads with")
    return cloud


def _with_absolute_paths(model: EdgeModelSettings) -> EdgeModelSettings:
    # Actors have a working folder of their own.
    choice = model.compiled_template
    if choice is not None and choice not in FAMILIES:
        choice = str(Path(choice).resolve())
    paths = {
        "model": model.model.resolve(),
        "generator": model.generator and model.generator.resolve(),
        "pool": model.pool and model.pool.resolve(),
        "chat_template": model.chat_template and model.chat_template.resolve(),
        "compiled_template": choice,
    }
    return model.model_copy(update=paths)


def _name(cloud: Path) -> str:
    return "generator-" + _plain(cloud.name)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _suffix(whole: Path | str) -> str:
    return "-" + sha256(str(whole).encode()).hexdigest()[:6]
