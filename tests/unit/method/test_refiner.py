"""The refiner reads texts as workers print them, and measures what it did not fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from loragen.errors import ArtifactCorrupt, InvalidRequest, PromptTooLong, RecipeMismatch
from loragen.method.edge import EdgeModel
from loragen.method.probes import Probe, answer_losses
from loragen.method.refine import RefineSpec
from loragen.method.refiner import Refiner
from loragen.own_template import OwnTemplate
from loragen.recipe import Level, Recipe
from loragen.template import CompiledTemplate
from loragen.tools import parse_tools
from tests.fakes.tiny import EXPERTS, LAYERS, LINEARS, RANK, TEMPLATE, TinyEdge, byte_tokenizer

SPEC = RefineSpec(steps=20, lr=0.3, probes_per_step=4, max_answer_tokens=4)
PROMPT = "Say A."
PROBES = [(f"Question {number}?", "A") for number in range(9)]
TOOLS = parse_tools([{"type": "function", "function": {"name": "clock"}}])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(tmp_path_factory.mktemp("tiny"))


def load(tiny: TinyEdge, *, template: str = TEMPLATE) -> Refiner:
    return Refiner.load(
        tiny.model,
        tiny.generator / "pool.safetensors",
        own=OwnTemplate(TEMPLATE + "{% if tools %}{{ tools | tojson }}{% endif %}"),
        compiled=CompiledTemplate(template),
        spec=SPEC,
    )


@pytest.fixture(scope="module")
def refiner(tiny: TinyEdge) -> Refiner:
    return load(tiny)


def ids(text: str) -> list[int]:
    encoded: list[int] = byte_tokenizer()(text, add_special_tokens=False)["input_ids"]
    return encoded


def test_a_probe_is_printed_as_both_modes_print_it(refiner: Refiner) -> None:
    lesson = refiner.lesson(PROMPT, [("Hi?", "Ho"), *PROBES[:7]], tools=TOOLS)
    asked = {tuple(probe.bare): probe for probe in [*lesson.fitted, *lesson.held_out]}
    probe = asked[tuple(ids("<|user|>Hi?<|end|><|assistant|>"))]
    printed = ids("<|system|>Say A.<|end|><|user|>Hi?<|end|><|assistant|>")
    assert probe.prompted[: len(printed)] == printed
    assert len(probe.prompted) > len(printed)
    assert probe.answer == ids("Ho<|end|>")


def test_a_quarter_and_four_at_least_are_held_out(refiner: Refiner) -> None:
    for count, held_out in ((8, 4), (19, 4), (24, 6)):
        lesson = refiner.lesson(PROMPT, [(str(n), "A") for n in range(count)])
        assert (len(lesson.held_out), len(lesson.fitted)) == (held_out, count - held_out)
        fitted = {tuple(probe.bare) for probe in lesson.fitted}
        assert fitted.isdisjoint(tuple(probe.bare) for probe in lesson.held_out)


def test_missing_answers_are_the_edge_models_with_the_prompt(refiner: Refiner) -> None:
    lesson = refiner.lesson(PROMPT, [(question, None) for question, _ in PROBES])
    for probe in lesson.fitted:
        assert probe.answer is not None
        assert 0 < len(probe.answer) <= SPEC.max_answer_tokens


def test_tasks_become_recipes_that_say_on_other_questions_what_they_learned(
    refiner: Refiner,
) -> None:
    other = [(question, "B") for question, _ in PROBES]
    lessons = [refiner.lesson(PROMPT, probes) for probes in (PROBES, other)]
    for lesson, gates in zip(lessons, refiner.fit(lessons), strict=True):
        recipe = refiner.examine(lesson, gates).recipe
        assert recipe.gates.shape == (LAYERS, len(LINEARS), EXPERTS)
        served = torch.from_numpy(recipe.expand(linears=len(LINEARS), rank=RANK)).expand(
            4, -1, -1, -1
        )
        chats = [(probe.bare, probe.answer or ()) for probe in lesson.held_out]
        before = answer_losses(refiner._edge, chats).mean()
        assert answer_losses(refiner._edge, chats, served).mean() < 0.7 * before


def test_a_start_is_where_it_begins(refiner: Refiner) -> None:
    start = Recipe.encode(
        torch.randn(LAYERS, len(LINEARS), EXPERTS).numpy(),
        pool_id=refiner.pool_id,
        level=Level.DENSE,
    )
    lesson = refiner.lesson(PROMPT, PROBES, start=start)
    gates = torch.from_numpy(start.gates.copy())
    again = refiner.examine(lesson, gates)
    assert again.before == again.after
    fitted = refiner.examine(lesson, refiner.fit([lesson])[0])
    assert fitted.before == again.before
    assert fitted.recipe.id != start.id


def asked(probes: list[Probe]) -> set[tuple[int, ...]]:
    return {tuple(probe.bare) for probe in probes}


@pytest.fixture(scope="module")
def brief(refiner: Refiner) -> Refiner:
    """Return a refiner that makes up few messages: an untrained model's have no end."""
    spec = replace(SPEC, self_probes=10, measure_probes=8)
    return Refiner(
        refiner._edge, refiner._pool, refiner._tokenizer, own=OwnTemplate(TEMPLATE),
        compiled=refiner._compiled, spec=spec,
    )  # fmt: skip


def test_a_prompts_examples_are_probes_beside_those_that_the_model_makes_up(
    brief: Refiner,
) -> None:
    questions = [f"Example {number}?" for number in range(4)]
    shown = "".join(f"User: {question}\nAssistant: A\n" for question in questions)
    lesson = brief.lesson(f"{PROMPT}\n{shown}", None)
    probes = [*lesson.fitted, *lesson.held_out]
    printed = {tuple(ids(f"<|user|>{question}<|end|><|assistant|>")) for question in questions}
    assert printed <= asked(probes)
    assert len(probes) > len(questions)
    assert all(probe.is_own for probe in probes)
    gates = torch.zeros(LAYERS, len(LINEARS), EXPERTS)
    recipe = Recipe.encode(gates.numpy(), pool_id=brief.pool_id, level=Level.DENSE)
    assert brief.measure(f"{PROMPT}\n{shown}", None, recipe).probes <= 8


def test_examples_are_at_most_half_and_those_too_long_are_left_out(brief: Refiner) -> None:
    long = "x" * 215  # it stands in the prompt and would stand behind it again
    prompt = f"Q: {long}\nA: A\n" + "".join(f"Q: {number}?\nA: A\n" for number in range(7))
    lesson = brief.lesson(prompt, None)
    found = asked([*lesson.fitted, *lesson.held_out])
    shown = [tuple(ids(f"<|user|>{number}?<|end|><|assistant|>")) for number in range(7)]
    assert [question in found for question in shown] == [True] * 5 + [False] * 2
    with pytest.raises(PromptTooLong):
        brief.lesson(prompt, [(long, None), *PROBES])


def test_messages_made_up_that_do_not_fit_beside_the_prompt_are_left_out(
    brief: Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [f"{number}?" for number in range(8)]
    monkeypatch.setattr(
        "loragen.method.refiner.expected_messages", lambda *_, **__: ["x" * 40, *short]
    )
    turn = len(ids("<|system|><|end|><|user|><|end|><|assistant|>"))
    prompt = "x" * (brief._context - brief._spec.max_answer_tokens - turn - 39)
    lesson = brief.lesson(prompt, None)
    probes = [*lesson.fitted, *lesson.held_out]
    assert asked(probes) == {tuple(ids(f"<|user|>{each}<|end|><|assistant|>")) for each in short}


def drawing(
    monkeypatch: pytest.MonkeyPatch, *, usual: list[str], varied: list[str]
) -> dict[bool, int]:
    """Have the edge model expect these messages; return how many of each kind were asked for."""
    asked_for = {}

    def expected(*_: Any, count: int, varied: bool, **__: Any) -> list[str]:
        asked_for[varied] = count
        return (odd if varied else usual)[:count]

    odd = varied
    monkeypatch.setattr("loragen.method.refiner.expected_messages", expected)
    return asked_for


def test_a_message_that_is_drawn_again_counts_again_in_a_measure(
    refiner: Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ["Often?"] * 10 + [f"{number}?" for number in range(14)]
    asked_for = drawing(monkeypatch, usual=usual, varied=[])
    gates = torch.zeros(LAYERS, len(LINEARS), EXPERTS)
    recipe = Recipe.encode(gates.numpy(), pool_id=refiner.pool_id, level=Level.DENSE)
    once = refiner.measure(PROMPT, [(message, None) for message in dict.fromkeys(usual)], recipe)
    made_up = refiner.measure(PROMPT, None, recipe)
    often = refiner.measure(PROMPT, [("Often?", None)], recipe).fidelity
    assert asked_for == {False: 24}
    assert (made_up.probes, once.probes) == (24, 15)
    expected = (15 * once.fidelity.agreement + 9 * often.agreement) / 24
    assert made_up.fidelity.agreement == pytest.approx(expected)
    assert made_up.fidelity.doubt is not None
    assert made_up.fidelity.doubt == pytest.approx(
        (15 * (once.fidelity.doubt or 0) + 9 * (often.doubt or 0)) / 24, rel=1e-4
    )


def test_where_too_few_messages_are_different_odd_ones_come_with_them(
    refiner: Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ["a?"] * 12 + ["b?"] * 12
    odd = ["a?", *(f"{number}?" for number in range(20))]
    drawing(monkeypatch, usual=usual, varied=odd)
    gates = torch.zeros(LAYERS, len(LINEARS), EXPERTS)
    recipe = Recipe.encode(gates.numpy(), pool_id=refiner.pool_id, level=Level.DENSE)
    assert refiner.measure(PROMPT, None, recipe).probes == 24 + 6
    drawing(monkeypatch, usual=usual, varied=odd[:3])
    with pytest.raises(InvalidRequest, match="expects 4 different"):
        refiner.measure(PROMPT, None, recipe)


def test_a_given_answer_ends_as_the_chat_template_ends_one(
    tiny: TinyEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama 3 names three end tokens, and first one that no answer of a chat ends in."""
    (end,) = ids("<|end|>")
    monkeypatch.setattr(EdgeModel, "end_ids", [5, end])
    lesson = load(tiny).lesson(PROMPT, PROBES)
    assert {(probe.answer or [0])[-1] for probe in lesson.fitted} == {end}
    monkeypatch.setattr(EdgeModel, "end_ids", [5])
    lesson = load(tiny).lesson(PROMPT, PROBES)
    assert {(probe.answer or [0])[-1] for probe in lesson.fitted} == {5}


def test_a_text_with_a_token_that_the_model_does_not_have_is_refused(
    refiner: Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 3's tokenizer has one for images, which its text models have not."""
    monkeypatch.setattr(EdgeModel, "vocabulary", 100)
    with pytest.raises(InvalidRequest, match="token that the edge model does not have"):
        refiner.lesson(PROMPT, PROBES)


def test_doubt_is_how_unsure_the_model_is_of_its_own_answers(refiner: Refiner) -> None:
    gates = torch.zeros(LAYERS, len(LINEARS), EXPERTS)
    recipe = Recipe.encode(gates.numpy(), pool_id=refiner.pool_id, level=Level.DENSE)
    own = [(question, None) for question, _ in PROBES]
    known = refiner.lesson(PROMPT, own)
    said = [(probe.prompted, probe.answer or ()) for probe in [*known.fitted, *known.held_out]]
    expected = answer_losses(refiner._edge, said).mean().item()
    alone = refiner.measure(PROMPT, own, recipe).fidelity.doubt
    assert alone == pytest.approx(expected, rel=1e-4)
    beside = refiner.measure(PROMPT, [*own, ("Unlikely?", "Zq~!")], recipe).fidelity
    assert beside.doubt == pytest.approx(expected, rel=1e-4)
    assert refiner.measure(PROMPT, PROBES, recipe).fidelity.doubt is None


def test_what_does_not_fit_is_refused(tiny: TinyEdge, refiner: Refiner) -> None:
    with pytest.raises(PromptTooLong):
        refiner.lesson("x" * 500, PROBES)
    with pytest.raises(PromptTooLong):
        refiner.lesson(PROMPT, [*PROBES, ("Tell all.", "x" * 500)])
    gates = torch.zeros(LAYERS, len(LINEARS), EXPERTS).numpy()
    foreign = Recipe.encode(gates, pool_id="0f" * 32, level=Level.DENSE)
    with pytest.raises(RecipeMismatch):
        refiner.lesson(PROMPT, PROBES, start=foreign)
    with pytest.raises(ArtifactCorrupt, match="template"):
        load(tiny, template=TEMPLATE + " ")
