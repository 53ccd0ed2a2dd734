from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.engine.exceptions import EngineDeadError

from loragen.errors import SelfTestFailed
from loragen.recipe import Recipe
from tests.fakes.tiny import TinyEdge
from workers.ids import RecipeIds
from workers.intake import RecipeIntake, RecipeView
from workers.selftest import SelfTest


@dataclass
class FakeEngine:
    """Answers with log-probabilities that say which recipe was served."""

    base: float = -1.0
    zero: float = -1.0
    mixed: float = -2.0
    requests: list[str] = field(default_factory=list)

    async def generate(
        self, prompt: Any, params: Any, request_id: str, *, lora_request: Any
    ) -> AsyncIterator[Any]:
        self.requests.append(request_id)
        yield self.output(self.base)  # an earlier, shorter output
        if lora_request is None:
            yield self.output(self.base)
            return
        gates = Recipe.from_text(lora_request.base_model_name).gates
        yield self.output(self.mixed if gates.any() else self.zero)

    def output(self, logprob: float) -> Any:
        return SimpleNamespace(outputs=[SimpleNamespace(logprobs=[{7: _Logprob(logprob)}])])


class DeadEngine(FakeEngine):
    """Dies of the first recipe, as stock vLLM does without our plugin."""

    async def generate(
        self, prompt: Any, params: Any, request_id: str, *, lora_request: Any
    ) -> AsyncIterator[Any]:
        if lora_request is not None:
            raise EngineDeadError
        yield self.output(self.base)


@dataclass
class _Logprob:
    logprob: float


@pytest.fixture(scope="module")
def intake(tmp_path_factory: pytest.TempPathFactory) -> RecipeIntake:
    tiny = TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))
    return RecipeIntake(tiny.pool.id, tiny.pool.spec, RecipeIds(), RecipeView(frozenset()))


async def test_an_engine_that_mixes_recipes_passes(intake: RecipeIntake) -> None:
    engine = FakeEngine()
    await SelfTest(engine, intake).run()
    assert len(set(engine.requests)) == 3


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (FakeEngine(mixed=-1.0), "does not change"),
        (FakeEngine(zero=-1.0000001), "zero gates"),
        (FakeEngine(base=float("nan")), "not finite"),
        (FakeEngine(mixed=float("inf")), "not finite"),
        (DeadEngine(), "plugin loaded"),
    ],
)
async def test_an_engine_that_does_not_is_refused(
    intake: RecipeIntake, engine: FakeEngine, reason: str
) -> None:
    with pytest.raises(SelfTestFailed, match=reason):
        await SelfTest(engine, intake).run()
