from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragen.errors import ArtifactCorrupt, ConfigError
from tests.fakes.tiny import TinyEdge
from workers.serve import prepare, verify
from workers.spec import WorkerSpec


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def spec(tiny: TinyEdge) -> WorkerSpec:
    return WorkerSpec("tiny", tiny.pool.spec.template_hash, tiny.generator / "pool.safetensors")


def prepared(
    spec: WorkerSpec, model: Path, *, stages: int = 1
) -> tuple[WorkerSpec, dict[str, Any]]:
    """Return the spec and the arguments that vLLM starts with."""
    args = Namespace(
        model=str(model),
        additional_config=spec.additional_config(),
        max_loras=64,
        pipeline_parallel_size=stages,
    )
    prepare(args)
    return WorkerSpec.from_additional_config(args.additional_config), vars(args)


def test_the_pool_of_the_edge_model_is_accepted_and_gets_its_id_and_backend(
    tiny: TinyEdge, spec: WorkerSpec
) -> None:
    ready, arguments = prepared(replace(spec, backend="auto"), tiny.model)
    assert ready == replace(spec, pool_id=tiny.pool.id, backend="gate")
    assert arguments["max_loras"] == 64


def test_recipes_that_are_materialised_get_slots_that_they_fit_in(
    tiny: TinyEdge, spec: WorkerSpec
) -> None:
    ready, arguments = prepared(replace(spec, backend="materialise", adapter_slots=4), tiny.model)
    assert ready.backend == "materialise"
    assert (arguments["max_loras"], arguments["max_lora_rank"]) == (4, 8)
    assert arguments["lora_target_modules"] == ["gate_proj", "up_proj", "down_proj"]


def test_a_worker_without_pool_has_nothing_to_prepare(tiny: TinyEdge) -> None:
    spec = WorkerSpec("tiny", "0" * 64)
    assert prepared(spec, tiny.model)[0] == spec


def test_the_pool_of_another_edge_model_is_refused(tmp_path: Path, spec: WorkerSpec) -> None:
    other = TinyEdge.make(tmp_path, seed=1)
    with pytest.raises(ArtifactCorrupt, match="another edge model"):
        verify(spec, other.model)


def test_the_pool_of_another_template_is_refused(tiny: TinyEdge, spec: WorkerSpec) -> None:
    with pytest.raises(ArtifactCorrupt, match="another compiled template"):
        verify(replace(spec, template_hash="0" * 64), tiny.model)


def test_a_broken_pool_file_is_refused(tiny: TinyEdge, spec: WorkerSpec, tmp_path: Path) -> None:
    broken = tmp_path / "pool.safetensors"
    broken.write_bytes(b"not a pool")
    with pytest.raises(ArtifactCorrupt, match="cannot read pool"):
        verify(replace(spec, pool=broken), tiny.model)


def test_a_spec_survives_the_way_through_vllm(spec: WorkerSpec) -> None:
    assert WorkerSpec.from_additional_config(spec.additional_config()) == spec


@pytest.mark.parametrize("config", [None, {}, {"loragen": {"edge_model": "tiny"}}])
def test_vllm_started_without_our_launcher_is_refused(config: dict[str, Any] | None) -> None:
    with pytest.raises(ConfigError, match="python -m workers"):
        WorkerSpec.from_additional_config(config)


def test_a_pipeline_is_refused_before_an_engine_starts(tiny: TinyEdge, spec: WorkerSpec) -> None:
    with pytest.raises(ConfigError, match="pipeline"):
        prepared(spec, tiny.model, stages=2)
