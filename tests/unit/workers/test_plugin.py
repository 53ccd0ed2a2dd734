import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from vllm.lora.request import LoRARequest
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.v1.worker import cpu_worker, lora_model_runner_mixin
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

from loragen.errors import ConfigError
from workers.backends import make_manager
from workers.plugin import RUNNER_CALLS, register
from workers.seeds import SeededRunner
from workers.spec import WorkerSpec

CALL = r"lora_manager\.([a-z_]+)"


@pytest.fixture(autouse=True)
def stock_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what register() does to vLLM."""
    monkeypatch.setattr(
        lora_model_runner_mixin, "LRUCacheWorkerLoRAManager", LRUCacheWorkerLoRAManager
    )
    monkeypatch.setattr(cpu_worker, "CPUModelRunner", CPUModelRunner)
    monkeypatch.setattr(LoRARequest, "__repr__", LoRARequest.__repr__)


def test_registering_twice_is_registering_once() -> None:
    register()
    register()
    assert lora_model_runner_mixin.LRUCacheWorkerLoRAManager is make_manager
    assert cpu_worker.CPUModelRunner is SeededRunner


def test_nobody_else_than_a_cpu_needs_our_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.plugin.installed_vllm", lambda: ("vllm", "0.32.0"))
    register()
    assert cpu_worker.CPUModelRunner is CPUModelRunner


def test_the_list_of_what_runners_call_is_complete() -> None:
    runners = Path(lora_model_runner_mixin.__file__).parent.rglob("*.py")
    called = {name for file in runners for name in re.findall(CALL, file.read_text())}
    assert called == set(RUNNER_CALLS)


def test_a_vllm_without_the_name_we_rebind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(lora_model_runner_mixin, "LRUCacheWorkerLoRAManager")
    with pytest.raises(ConfigError, match="not where it was"):
        register()


def test_a_manager_that_lacks_a_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.plugin.RUNNER_CALLS", (*RUNNER_CALLS, "fly"))
    with pytest.raises(ConfigError, match="fly"):
        register()


def test_another_vllm_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.plugin.version", lambda name: "0.33.0")
    with pytest.raises(ConfigError, match=r"0\.33\.0"):
        register()
    assert lora_model_runner_mixin.LRUCacheWorkerLoRAManager is LRUCacheWorkerLoRAManager


def test_a_logged_request_shows_no_recipe() -> None:
    register()
    assert "secret" not in repr(LoRARequest("digest", 1, "digest", base_model_name="secret"))


def test_no_engine_starts_before_its_backend_is_decided() -> None:
    spec = WorkerSpec("tiny", "0" * 64, backend="auto")
    config = SimpleNamespace(additional_config=spec.additional_config())
    with pytest.raises(ConfigError, match="not decided"):
        make_manager(config, None, {})
