"""Batches of the actor: order, groups, and failures that stay with their prompt."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from loragen.errors import EdgeModelNotFound, LoragenError, PromptTooLong, RecipeMismatch
from loragen.recipe import Recipe
from loragen.tools import compile_text, parse_tools
from loragen.wire import CompileReply, CompileRequest
from router_service.generator_actor import GeneratorActor
from tests.fakes.fake_generator import FakeGenerator


class BrokenGenerator(FakeGenerator):
    def compile(self, prompts: Sequence[str]) -> list[Recipe]:
        if "private" in prompts[0]:
            raise RuntimeError(f"cannot read {prompts[0]}")
        return super().compile(prompts)


def request(prompt: str, edge_model: str = "one") -> CompileRequest:
    return CompileRequest(edge_model=edge_model, prompt=prompt)


def actor(**generators: FakeGenerator) -> GeneratorActor:
    by_folder = {Path(name): generator for name, generator in generators.items()}
    return GeneratorActor({name: Path(name) for name in generators}, by_folder.__getitem__)


async def test_replies_stand_in_the_order_of_requests_across_heads() -> None:
    one, two = FakeGenerator(), FakeGenerator()
    asked = [request("a"), request("b", "two"), request("c"), request("a", "two")]
    ids = [f"{number:032x}" for number in range(len(asked))]
    batch = [r.model_copy(update={"request_id": i}) for r, i in zip(asked, ids, strict=True)]
    outcomes = await actor(one=one, two=two).compile_batch(batch)
    assert [getattr(outcome, "request_id", None) for outcome in outcomes] == ids
    recipes = [outcome.recipe for outcome in outcomes if isinstance(outcome, CompileReply)]
    alone = [(await actor(one=FakeGenerator()).compile_batch([request(p)]))[0] for p in "abca"]
    assert recipes == [reply.recipe for reply in alone if isinstance(reply, CompileReply)]
    assert (one.calls, two.calls) == (2, 2)


async def test_a_generator_compiles_for_its_own_pool_alone() -> None:
    generator = FakeGenerator()
    own = request("a").model_copy(update={"pool_id": generator.head.pool_id})
    other = request("a").model_copy(update={"pool_id": "0f" * 32})
    outcomes = await actor(one=generator).compile_batch([other, own, request("a")])
    assert [type(outcome) for outcome in outcomes] == [RecipeMismatch, CompileReply, CompileReply]


async def test_tools_are_read_behind_the_prompt() -> None:
    tools = parse_tools([{"type": "function", "function": {"name": "clock"}}])
    with_tools = CompileRequest(edge_model="one", prompt="a", tools=tools)
    as_text = request(compile_text("a", tools))
    replies = await actor(one=FakeGenerator()).compile_batch([with_tools, as_text, request("a")])
    recipes = [reply.recipe_id for reply in replies if isinstance(reply, CompileReply)]
    assert recipes[0] == recipes[1] != recipes[2]


async def test_one_prompt_too_long_fails_alone() -> None:
    generator = FakeGenerator(max_prompt_tokens=3)
    outcomes = await actor(one=generator).compile_batch([request("abc"), request("abcd")])
    assert isinstance(outcomes[0], CompileReply)
    assert isinstance(outcomes[1], PromptTooLong)
    assert generator.calls == 1


async def test_a_batch_of_nothing_but_refusals_runs_no_model() -> None:
    generator = FakeGenerator(max_prompt_tokens=3)
    outcomes = await actor(one=generator).compile_batch([request("abcd"), request("x", "none")])
    assert [type(outcome) for outcome in outcomes] == [PromptTooLong, EdgeModelNotFound]
    assert generator.calls == 0


async def test_a_prompt_that_the_model_fails_on_fails_alone_and_is_not_quoted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = actor(one=BrokenGenerator(), two=FakeGenerator())
    batch = [request("private"), request("public"), request("x", "two")]
    outcomes = await broken.compile_batch(batch)
    assert type(outcomes[0]) is LoragenError
    assert isinstance(outcomes[1], CompileReply)
    assert isinstance(outcomes[2], CompileReply)
    assert "private" not in str(outcomes[0])
    assert "private" not in caplog.text
