"""Which deployments a configuration needs."""

import json
from pathlib import Path

import pytest

from config.edge_model import EdgeModelSettings
from config.generator import GeneratorSettings
from config.settings import Settings
from loragen.errors import ArtifactCorrupt, ConfigError
from router_service.plan import GENERATOR_FILES, plan_clouds, plan_refiners, plan_service


def generator(folder: Path, cloud: str) -> Path:
    folder.mkdir(parents=True)
    for name in GENERATOR_FILES:
        (folder / name).write_text(json.dumps({"cloud": cloud}))
    target = folder / cloud
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text("{}")
    return folder


def settings(**generators: Path | None) -> Settings:
    models = [
        EdgeModelSettings(name=name, model=Path("m"), generator=folder)
        for name, folder in generators.items()
    ]
    return Settings(edge_models=tuple(models))


def test_generators_of_one_cloud_model_share_a_deployment(tmp_path: Path) -> None:
    a = generator(tmp_path / "a", "../cloud")
    b = generator(tmp_path / "b", "../cloud")
    plans = plan_clouds(settings(one=a, two=b, three=None))
    assert [plan.deployment for plan in plans] == ["generator-cloud"]
    assert plans[0].folders == {"one": a, "two": b}


def test_cloud_models_of_one_name_get_deployments_of_their_own(tmp_path: Path) -> None:
    a = generator(tmp_path / "x" / "a", "../cloud model")
    b = generator(tmp_path / "y" / "b", "../cloud model")
    names = [plan.deployment for plan in plan_clouds(settings(one=a, two=b))]
    assert len(set(names)) == 2
    assert all(name.startswith("generator-cloud-model-") for name in names)


def test_the_next_generator_of_a_model_gets_deployments_of_its_own(tmp_path: Path) -> None:
    old, new = (generator(tmp_path / name, "../cloud") for name in ("old", "new"))
    model = EdgeModelSettings(
        name="one", model=edge(tmp_path / "edge"), generator=old, next_generator=new,
        compiled_template="qwen3",
    )  # fmt: skip
    told = Settings(edge_models=(model, EdgeModelSettings(name="two", model=model.model)))
    plan = plan_service(told)
    assert [(each.deployment, each.folders) for each in plan.clouds] == [
        ("generator-cloud", {"one": old}),
        ("generator-cloud-next", {"one": new}),
    ]
    assert [(each.deployment, each.pool.parent) for each in plan.refiners] == [
        ("refiner-one", old),
        ("refiner-one-next", new),
    ]
    assert plan.cpus(told.generator) == 4


def test_nothing_to_compile_with_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="edge_models"):
        plan_service(settings(one=None))
    elsewhere = EdgeModelSettings(name="one", model=Path("m"), pool=pool_file(tmp_path))
    with pytest.raises(ConfigError, match="edge_models"):
        plan_service(Settings(edge_models=(elsewhere,)))


@pytest.mark.parametrize("name", GENERATOR_FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = generator(tmp_path / "a", "../cloud")
    (folder / name).unlink()
    with pytest.raises(ArtifactCorrupt, match=name):
        plan_clouds(settings(one=folder))


def test_a_missing_cloud_model_is_named(tmp_path: Path) -> None:
    folder = generator(tmp_path / "a", "../cloud")
    (tmp_path / "cloud" / "config.json").unlink()
    with pytest.raises(ArtifactCorrupt, match="cloud"):
        plan_clouds(settings(one=folder))


def test_a_missing_edge_model_is_named_where_pairs_are_read(tmp_path: Path) -> None:
    folder = generator(tmp_path / "a", "../cloud")
    config = {"cloud": "../cloud", "edge": "../edge", "router": {"pair_experts": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    plan_clouds(settings(one=folder))
    (folder / "config.json").write_text(json.dumps({**config, "router": {"pair_experts": 2}}))
    with pytest.raises(ArtifactCorrupt, match="no edge model"):
        plan_clouds(settings(one=folder))
    (folder / "../edge").mkdir()
    (folder / "../edge" / "config.json").write_text("{}")
    plan_clouds(settings(one=folder))


@pytest.mark.parametrize("text", ["no json", "{}", '{"cloud": 5}', "[]"])
def test_an_unreadable_generator_is_named(tmp_path: Path, text: str) -> None:
    folder = generator(tmp_path / "a", "../cloud")
    (folder / "config.json").write_text(text)
    with pytest.raises(ArtifactCorrupt, match="names no cloud model"):
        plan_clouds(settings(one=folder))


def pool_file(folder: Path) -> Path:
    path = folder / "pool.safetensors"
    path.touch()
    return path


def edge(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_edge_models_that_are_here_and_have_a_pool_get_a_refiner(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = edge(tmp_path / "edge")
    folder = generator(tmp_path / "g", "../cloud")
    models = [
        EdgeModelSettings(name=name, model=model, generator=pool, compiled_template=template)
        for name, model, pool, template in (
            ("a/b", here, folder, "qwen3"),
            ("a-b", here, folder, "own.jinja"),
            ("gone", tmp_path / "gone", folder, None),
            ("plain", here, None, None),
        )
    ]
    settings = Settings(edge_models=tuple(models), generator=GeneratorSettings(refine_threads=2))
    first, second = plan_refiners(settings)
    assert first.deployment != second.deployment
    assert first.deployment.startswith("refiner-a-b-")
    assert first.pool == folder / "pool.safetensors"
    assert first.model.compiled_template == "qwen3"
    assert second.model.compiled_template == str(Path("own.jinja").resolve())
    assert caplog.records[-1].edge_model == "gone"  # type: ignore[attr-defined]
    assert plan_service(settings).cpus(settings.generator) == 1 + 2 * 2


def test_a_pool_without_a_generator_gets_a_refiner_and_nothing_that_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pool, model = pool_file(tmp_path), edge(tmp_path / "edge")
    one = EdgeModelSettings(name="one", model=model, pool=Path("pool.safetensors"))
    told = Settings(edge_models=(one,))
    plan = plan_service(told)
    assert plan.clouds == ()
    (refiner,) = plan.refiners
    assert (refiner.deployment, refiner.pool) == ("refiner-one", pool)
    assert plan.cpus(told.generator) == 1
    pool.unlink()
    with pytest.raises(ArtifactCorrupt, match="no pool"):
        plan_service(told)
