import json
import pkgutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import SecretStr
from typer.testing import CliRunner

from config.edge_model import EdgeModelSettings
from config.settings import Settings
from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.families import family_template
from loragen.jinja import environment
from loragen.template import CompiledTemplate
from workers import launch as launch_module
from workers.__main__ import serve
from workers.launch import Launch
from workers.spec import WorkerSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "config.json").write_text("{}")
    (tmp_path / "edge" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "edge" / "compiled_template.jinja").write_text("compiled {{ messages }}")
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator" / "pool.safetensors").write_bytes(b"")
    return tmp_path


def edge(folder: Path, **fields: Any) -> EdgeModelSettings:
    return EdgeModelSettings(name="demo", model=folder / "edge", **fields)


def plan(model: EdgeModelSettings, *, secret: str | None = None, host: str = "127.0.0.1") -> Launch:
    settings = Settings(edge_models=(model,), worker_secret=SecretStr(secret) if secret else None)
    return Launch.plan(settings, model, host=host, port=8001)


def spec_of(launch: Launch) -> WorkerSpec:
    config = next(a for a in launch.arguments if a.startswith("--additional-config="))
    return WorkerSpec.from_additional_config(json.loads(config.partition("=")[2]))


def test_a_model_with_a_generator_gets_as_many_slots_as_requests_in_a_batch(folder: Path) -> None:
    launch = plan(edge(folder, generator=folder / "generator", max_num_seqs=48))
    assert {"--enable-lora", "--max-loras=48", "--max-num-seqs=48"} <= set(launch.arguments)
    spec = spec_of(launch)
    assert spec.edge_model == "demo"
    assert spec.pool == folder / "generator" / "pool.safetensors"


def test_how_recipes_are_mixed_is_left_open_or_asked_for(folder: Path) -> None:
    assert spec_of(plan(edge(folder, generator=folder / "generator"))).backend == "auto"
    asked = {"backend": "materialise", "adapter_slots": 16, "max_num_seqs": 4}
    spec = spec_of(plan(edge(folder, generator=folder / "generator", **asked)))
    assert (spec.backend, spec.adapter_slots) == ("materialise", 4)


def test_a_pool_without_a_generator_is_served_as_a_generators_is(folder: Path) -> None:
    pool = folder / "generator" / "pool.safetensors"
    launch, of_generator = plan(edge(folder, pool=pool)), plan(edge(folder, generator=pool.parent))
    assert launch == of_generator
    pool.unlink()
    for fields in ({"pool": pool}, {"generator": pool.parent}):
        with pytest.raises(ArtifactCorrupt, match="no pool"):
            plan(edge(folder, **fields))


def test_a_model_without_generator_is_served_without_lora(folder: Path) -> None:
    launch = plan(edge(folder))
    assert "--enable-lora" not in launch.arguments
    assert launch.environment["VLLM_PLUGINS"] == "loragen,loragen_api"
    assert launch.environment["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


def template_of(launch: Launch) -> str:
    """Return the template that the worker is started with."""
    (text,) = (a for a in launch.arguments if a.startswith("--chat-template="))
    return text.partition("=")[2]


def test_without_generator_a_model_keeps_its_template(folder: Path) -> None:
    (folder / "own.jinja").write_text("{{ messages }}!")
    model = edge(folder, chat_template=folder / "own.jinja")
    assert template_of(plan(model)) == str(folder / "own.jinja")


def test_with_a_generator_one_template_prints_both_modes(folder: Path) -> None:
    launch = plan(edge(folder, generator=folder / "generator"))
    template = environment().from_string(template_of(launch))
    assert template.render(messages="x") == "x"
    assert template.render(messages="x", loragen_compiled=True) == "compiled x"
    assert "--tokenizer-mode=hf" in launch.arguments
    compiled = CompiledTemplate.load(folder / "edge" / "compiled_template.jinja")
    assert spec_of(launch).template_hash == compiled.hash


def test_a_family_may_be_named_and_an_unknown_one_needs_to_be(folder: Path) -> None:
    (folder / "edge" / "compiled_template.jinja").unlink()
    with pytest.raises(ConfigError, match="compiled_template"):
        plan(edge(folder, generator=folder / "generator"))
    named = plan(edge(folder, generator=folder / "generator", compiled_template="qwen3"))
    assert spec_of(named).template_hash == family_template("qwen3").hash
    with pytest.raises(ArtifactCorrupt, match="qwen9"):
        plan(edge(folder, generator=folder / "generator", compiled_template="qwen9"))


def test_a_template_that_refuses_the_system_role_is_mended_without_generator_too(
    folder: Path,
) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    path = folder / "edge" / "chat_template.jinja"
    path.write_text(refusing + "{{ messages[0]['content'] }}")
    template = environment().from_string(template_of(plan(edge(folder))))
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert template.render(messages=chat) == "a\n\nb"


def test_a_parser_of_tool_calls_is_switched_on(folder: Path) -> None:
    arguments = plan(edge(folder, tool_call_parser="hermes")).arguments
    assert {"--enable-auto-tool-choice", "--tool-call-parser=hermes"} <= set(arguments)
    assert "--enable-auto-tool-choice" not in plan(edge(folder)).arguments


def test_a_template_among_the_tokenizers_settings_is_left_to_vllm(folder: Path) -> None:
    in_file = plan(edge(folder))
    text = (folder / "edge" / "chat_template.jinja").read_text()
    (folder / "edge" / "chat_template.jinja").unlink()
    for kept in (
        text,
        [{"name": "tool_use", "template": ""}, {"name": "default", "template": text}],
    ):
        (folder / "edge" / "tokenizer_config.json").write_text(json.dumps({"chat_template": kept}))
        launch = plan(edge(folder))
        assert not any(argument.startswith("--chat-template") for argument in launch.arguments)
        assert spec_of(launch).template_hash == spec_of(in_file).template_hash


def test_the_operators_own_arguments_come_last(folder: Path) -> None:
    assert plan(edge(folder, engine_args=("--seed=7",))).arguments[-1] == "--seed=7"


def test_the_secret_travels_in_the_environment_only(folder: Path) -> None:
    launch = plan(edge(folder), secret="s3cret")
    assert launch.environment["VLLM_API_KEY"] == "s3cret"
    assert not any("s3cret" in argument for argument in launch.arguments)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "worker"])
def test_an_open_address_needs_a_secret(folder: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="LORAGEN_WORKER_SECRET"):
        plan(edge(folder), host=host)
    plan(edge(folder), host=host, secret="s3cret")


@pytest.mark.parametrize(
    "missing", ["edge/config.json", "edge/chat_template.jinja", "generator/pool.safetensors"]
)
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ArtifactCorrupt, match=Path(missing).name):
        plan(edge(folder, generator=folder / "generator"))


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "1.0.0"])
def test_another_vllm_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("workers.plugin.version", lambda name: version)
    with pytest.raises(ConfigError, match=version):
        plan(edge(folder))


def test_no_vllm_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("workers.plugin.version", missing)
    with pytest.raises(ConfigError, match="not installed"):
        plan(edge(folder))


def test_a_cpu_engine_runs_its_model_itself_and_its_threads_do_not_spin(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = plan(edge(folder))
    (backend,) = [each for each in launch.arguments if "--distributed-executor-backend" in each]
    executor = pkgutil.resolve_name(backend.partition("=")[2])
    assert executor.__name__ == "UniProcExecutor"
    assert launch.environment["OMP_WAIT_POLICY"] == "passive"
    assert launch.environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "256"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert plan(edge(folder)).environment["OMP_WAIT_POLICY"] == "active"


def test_who_asks_for_parallel_models_gets_vllms_processes(folder: Path) -> None:
    launch = plan(edge(folder, engine_args=["--tensor-parallel-size=2"]))
    assert not any("--distributed-executor-backend" in each for each in launch.arguments)


def test_a_gpu_build_keeps_vllms_graphs_and_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "installed_vllm", lambda: ("vllm", "0.32.0"))
    launch = plan(edge(folder))
    assert "--enforce-eager" not in launch.arguments
    assert not any("kv-cache-memory" in argument for argument in launch.arguments)
    assert "TORCH_COMPILE_DISABLE" not in launch.environment


def test_the_kv_cache_may_be_a_part_of_a_gibibyte(folder: Path) -> None:
    arguments = plan(edge(folder, kv_cache_gib=0.25)).arguments
    assert f"--kv-cache-memory-bytes={2**28}" in arguments


@pytest.mark.parametrize(
    ("yaml", "status"),
    [
        ("edge_models: []", 2),
        ("edge_models: [{name: demo, model: /nowhere}]", 3),
        ("edge_modelz: []", 2),
    ],
)
def test_the_command_refuses_with_one_line_and_its_exit_status(
    tmp_path: Path, yaml: str, status: int
) -> None:
    app = typer.Typer()
    app.command()(serve)
    config = tmp_path / "config.yaml"
    config.write_text(yaml)
    result = CliRunner().invoke(app, ["--edge-model", "demo", "--config", str(config)])
    assert result.exit_code == status
    assert result.stderr.count("\n") == 1
    assert "worker refuses to start" in result.stderr
