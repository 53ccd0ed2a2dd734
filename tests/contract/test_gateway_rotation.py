"""While the master secret is rotated, every prompt stays the task it is, in every gateway."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from loragen.keys import TenantKeys
from loragen.secret_versions import parse_versions
from server.identity import Identity
from server.recipe_tier import RecipeTier
from server.renewal import Renewal, RenewalState
from tests.fakes.gateway import MODEL, Gateway, expected_recipe, gateway, redis_shared
from tests.fakes.live import wait_until
from tests.fakes.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.timeout(300)]

OLD, NEW = "0d" * 32, "1e" * 32
STAGES = ((OLD, f"{OLD},{NEW}"), (f"{OLD},{NEW}", f"{NEW},{OLD}"), (f"{NEW},{OLD}", NEW))
"""What two gateways hold while they learn a version, go over to it, forget the older; one by one.

Before the last of these, what is stored is renewed.
"""
PROMPTS = [f"You are number {number}, and known to everybody as such." for number in range(4)]


@dataclass
class Rotation:
    """Gateways over one Redis by what they hold, and what is known of the prompts."""

    gates: dict[str, Gateway]
    ids: dict[str, str] = field(default_factory=dict)

    def register(self, gate: Gateway, prompt: str) -> None:
        """Register a prompt: the task is new, or the one that it was."""
        task = gate.create(prompt)
        assert task["cached"] == (prompt in self.ids)
        assert self.ids.setdefault(prompt, task["id"]) == task["id"]

    def delete(self, gate: Gateway, prompt: str) -> None:
        """Delete a task if it exists."""
        task_id = self.ids.pop(prompt, None)
        if task_id is not None:
            assert gate.http.delete(f"/v1/tasks/{task_id}").status_code == 200
            for each in self.gates.values():
                wait_until(partial(is_gone, each, task_id))

    def ask(self, gate: Gateway, prompt: str) -> None:
        """Ask a task: by its id, and by its prompt as system text."""
        right = f"[recipe {expected_recipe(prompt).id}] [system none] hi"
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": "hi"}]
        body = {"model": MODEL, "messages": messages}
        if prompt not in self.ids:
            return
        for reply in (
            gate.ask("hi", task_id=self.ids[prompt]),
            gate.http.post("/v1/chat/completions", json=body),
        ):
            assert reply.headers["x-loragen-task"] == self.ids[prompt], reply.text
            assert reply.json()["choices"][0]["message"]["content"] == right

    def look(self, stage: Sequence[str]) -> None:
        """Look at everything that is there, through every gateway."""
        for gate in (self.gates[held] for held in stage):
            listed = {task["id"] for task in gate.http.get("/v1/tasks?limit=100").json()["data"]}
            assert listed == set(self.ids.values())


async def renew(valkey: Valkey, held: str) -> RenewalState:
    """Renew everything as a gateway with these versions does behind its start."""
    shared = redis_shared(valkey.url, "rotation")
    keys = partial(TenantKeys, parse_versions(held, name="master_secret"))
    recipes = RecipeTier(shared.store, keys)
    identity = Identity(shared.store, keys)
    renewal = Renewal(shared, identity, recipes, is_rotated=True, is_sealed=False)
    await renewal.run()
    await shared.close()
    return renewal.state


def is_gone(gate: Gateway, task_id: str) -> bool:
    return gate.ask("hi", task_id=task_id).status_code == 404


@pytest.fixture(scope="module")
def gates(valkey: Valkey) -> Iterator[dict[str, Gateway]]:
    with ExitStack() as stack:
        yield {
            held: stack.enter_context(
                gateway(
                    redis_shared(valkey.url, "rotation"),
                    "rotation",
                    auto={"min_prompt_tokens": 0},
                    master_secret=held,
                )
            )
            for held in dict.fromkeys(held for stage in STAGES for held in stage)
        }


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "register", "ask", "delete"]),
        st.integers(0, 1),
        st.sampled_from(PROMPTS),
    ),
    max_size=8,
)


@settings(  # shrinking a failure would take minutes
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.tuples(STEPS, STEPS, STEPS))
def test_a_prompt_is_one_task_whichever_gateway_is_asked(
    gates: dict[str, Gateway], valkey: Valkey, plan: tuple[list[tuple[str, int, str]], ...]
) -> None:
    for key in valkey.client.scan_iter("rotation:*"):
        valkey.client.delete(key)
    rotation = Rotation(gates)
    for stage, steps in zip(STAGES, plan, strict=True):
        if stage is STAGES[-1]:
            state = asyncio.run(renew(valkey, stage[0]))
            assert (state.status, state.unreadable) == ("done", 0)
            assert state.tasks >= len(rotation.ids)
        for step, place, prompt in steps:
            getattr(rotation, step)(gates[stage[place]], prompt)
        for prompt in PROMPTS:
            for held in stage:
                rotation.ask(gates[held], prompt)
    rotation.look(STAGES[-1])


def test_a_prompt_that_was_seen_before_a_rotation_and_registered_after_it_stays_one_task(
    gates: dict[str, Gateway], valkey: Valkey
) -> None:
    for key in valkey.client.scan_iter("rotation:*"):
        valkey.client.delete(key)
    first, both, last = gates[OLD], *(gates[held] for held in STAGES[-1])
    messages = [{"role": "system", "content": PROMPTS[0]}, {"role": "user", "content": "hi"}]
    made = first.ask("", messages=messages, system_prompt="compile")
    asyncio.run(renew(valkey, STAGES[-1][0]))
    registered = both.create(PROMPTS[0])["id"]
    assert registered == made.headers["x-loragen-task"]
    assert last.create(PROMPTS[0])["id"] == registered


def test_two_gateways_at_once_make_one_task(gates: dict[str, Gateway]) -> None:
    """Each names the prompt by another version, and neither waits for the other."""

    async def race(prompt: str) -> set[str]:
        async with httpx.AsyncClient(timeout=20) as client:
            replies = await asyncio.gather(
                *(
                    client.post(
                        f"{gates[held].server.url}/v1/tasks",
                        json={"model": MODEL, "system_prompt": prompt},
                    )
                    for held in STAGES[1] * 3
                )
            )
        assert {reply.status_code for reply in replies} <= {200, 201}
        return {reply.json()["id"] for reply in replies}

    for number in range(10):
        assert len(asyncio.run(race(f"You are racer {number}."))) == 1


def test_a_conversation_keeps_its_mode_over_gateways(gates: dict[str, Gateway]) -> None:
    one, other = (gates[held] for held in STAGES[1])
    system = {"role": "system", "content": "You are a talker with a long prompt. " * 9}
    hello = {"role": "user", "content": "hello"}

    def say(gate: Gateway, *messages: dict[str, str]) -> tuple[str, dict[str, str]]:
        body = {"model": MODEL, "messages": [system, *messages]}
        reply = gate.http.post("/v1/chat/completions", json=body)
        return reply.headers["x-loragen-mode"], reply.json()["choices"][0]["message"]

    mode, answer = say(one, hello)
    assert mode == "prompt"
    made = other.create(str(system["content"]))
    assert made["status"] == "ready"
    said = {"role": "assistant", "content": answer["content"]}
    for gate in (one, other):
        assert say(gate, hello, said, hello)[0] == "prompt"
        assert say(gate, hello)[0] == "compiled"
