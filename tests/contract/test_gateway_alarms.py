"""What must not happen unseen: templates that leak, routers that collapsed."""

from typing import Any

import pytest

from loragen.recipe import Level, Recipe
from tests.fakes.fake_worker import LAYERS, LINEARS, POOL_ID
from tests.fakes.gateway import MODEL, Gateway
from tests.fakes.live import wait_until
from tests.fakes.stub_generator import recipe_of, reply_of

pytestmark = pytest.mark.redis

PROMPT = "Answer in verse."
LEAKED = "You are a helpful assistant. " * 12


def unstripped(gate: Gateway) -> float:
    return gate.metric("loragen_prompts_unstripped_total", model=MODEL)


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_a_template_that_prints_a_prompt_is_noticed(gate: Gateway, fields: dict[str, Any]) -> None:
    task_id = gate.create(PROMPT)["id"]
    before = unstripped(gate)
    assert gate.ask("hello", task_id=task_id, **fields).status_code == 200
    gate.worker.printed = LEAKED
    assert gate.ask("hello", task_id=task_id, **fields).status_code == 200
    wait_until(lambda: unstripped(gate) == before + 1)


def test_modes_that_print_a_prompt_are_not_blamed_for_it(gate: Gateway) -> None:
    task_id = gate.create(PROMPT)["id"]
    gate.worker.printed = LEAKED
    before = unstripped(gate)
    for mode in ("prompt", "base"):
        assert gate.ask("hello", task_id=task_id, loragen={"mode": mode}).status_code == 200
    assert gate.ask("hello").status_code == 200
    assert unstripped(gate) == before
    assert (
        gate.ask("hello", task_id=task_id).status_code == 200
    )  # counted, so those before were not
    wait_until(lambda: unstripped(gate) == before + 1)


def test_a_generator_that_uses_the_same_experts_always_is_noticed(gate: Gateway) -> None:
    def experts_in_use() -> float:
        return gate.metric("loragen_router_effective_experts", model=MODEL)

    for number in range(32):
        gate.create(f"{PROMPT} {number}")
    assert experts_in_use() > 0.7
    gates = recipe_of(PROMPT).gates.copy()
    gates[..., 1:] = 0
    gates[..., 0] = 1
    collapsed = Recipe.encode(gates, pool_id=POOL_ID, level=Level.DENSE)
    assert collapsed.gates.shape[:2] == (LAYERS, LINEARS)
    gate.generator.reply = reply_of(collapsed)
    for number in range(160):
        gate.create(f"{PROMPT} again {number}")
    assert experts_in_use() < 0.4  # where LoragenRouterCollapsed fires
