"""Refining makes gates say what the prompt said, each task for itself."""

import time
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from loragen.errors import DeadlineExceeded
from loragen.method.bootstrap import bootstrap_experts
from loragen.method.edge import EdgeModel, linears_of
from loragen.method.fidelity import measure
from loragen.method.probes import Probe, answer_losses, are_said
from loragen.method.refine import RefineSpec, refine
from tests.fakes.tiny import EXPERTS, LAYERS, LINEARS, RANK, TinyEdge

END = 256
SHAPE = (LAYERS, len(LINEARS), EXPERTS * RANK)
SPEC = RefineSpec(steps=60, lr=0.2, probes_per_step=2, max_answer_tokens=4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(tiny: TinyEdge) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(tiny.model, dtype=torch.float32)
    model.eval()
    model.requires_grad_(False)
    return model


@pytest.fixture
def edge(tiny: TinyEdge) -> EdgeModel:
    edge = EdgeModel.load(tiny.model, tiny.pool)
    edge.model.requires_grad_(False)
    return edge


def task(answer: int) -> list[Probe]:
    return [Probe([answer, *question], question, [answer, END]) for question in ([7, 8], [9, 3, 4])]


def test_tasks_learn_their_own_answers_to_the_same_questions(edge: EdgeModel) -> None:
    tasks = [task(65), task(90)]
    gates = refine(edge, tasks, torch.zeros(2, *SHAPE), SPEC)
    for probes, own in zip(tasks, gates, strict=True):
        chats = [(probe.bare, probe.answer or ()) for probe in probes]
        before = answer_losses(edge, chats)
        after = answer_losses(edge, chats, own.expand(2, -1, -1, -1))
        assert (after < 0.5 * before).all()


def test_a_task_is_fitted_as_if_it_were_alone(edge: EdgeModel) -> None:
    tasks = [task(65), task(90)]
    spec = RefineSpec(steps=5, probes_per_step=2)
    together = refine(edge, tasks, torch.zeros(2, *SHAPE), spec)
    for index in (0, 1):
        alone = refine(edge, [tasks[index]], torch.zeros(1, *SHAPE), spec)
        torch.testing.assert_close(together[index], alone[0], atol=1e-3, rtol=1e-3)


def test_no_steps_keep_the_start(edge: EdgeModel) -> None:
    start = torch.randn(1, *SHAPE)
    assert refine(edge, [task(65)], start, RefineSpec(steps=0)).equal(start)


def test_only_a_task_whose_answers_are_not_said_goes_through_another_round(edge: EdgeModel) -> None:
    said = [Probe(question, question) for question in ([7, 8], [9, 3, 4])]
    tasks = [said, task(90)]
    start = torch.zeros(2, *SHAPE)
    spec = RefineSpec(steps=3, lr=0.01, probes_per_step=2, max_answer_tokens=4)
    one, two = (refine(edge, tasks, start, replace(spec, rounds=rounds)) for rounds in (1, 2))
    torch.testing.assert_close(one[0], two[0])
    assert (one[1] - two[1]).abs().max() > 1e-3


def test_a_task_that_is_not_fitted_by_the_deadline_is_given_up(edge: EdgeModel) -> None:
    with pytest.raises(DeadlineExceeded, match="step 0 of 60"):
        refine(edge, [task(65)], torch.zeros(1, *SHAPE), SPEC, deadline=time.monotonic())


def test_another_round_begins_only_where_it_can_be_over_in_time(
    edge: EdgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RefineSpec(steps=3, lr=0.01, probes_per_step=2, max_answer_tokens=4)

    def fitted(rounds: int, deadline: float) -> torch.Tensor:
        ticks = count()
        clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))  # for this module alone
        monkeypatch.setattr("loragen.method.refine.time", clock)
        wanted = replace(spec, rounds=rounds)
        return refine(edge, [task(90)], torch.zeros(1, *SHAPE), wanted, deadline=deadline)

    # A look at the clock is a second: the first round is over after 4, and then it is 5.
    assert fitted(2, 8.5).equal(fitted(1, 8.5))
    assert not fitted(2, 9.5).equal(fitted(1, 9.5))


def test_an_answer_is_said_if_greedy_generation_says_it(edge: EdgeModel) -> None:
    questions = [[7, 8], [9, 3, 4], [5]]
    own = edge.generate(questions, max_tokens=4)
    wrong_at_last = [[*answer[:-1], (answer[-1] + 1) % 250] for answer in own]
    chats = [*zip(questions, own, strict=True), *zip(questions, wrong_at_last, strict=True)]
    zeros = torch.zeros(len(chats), *SHAPE)
    for gates in (None, zeros):
        assert are_said(edge, chats, gates).tolist() == [True] * 3 + [False] * 3
    gates = refine(edge, [task(65)], zeros[:1], SPEC)
    taught = [(probe.bare, probe.answer or ()) for probe in task(65)]
    assert are_said(edge, taught, gates.expand(2, -1, -1, -1)).all()
    assert not are_said(edge, taught).any()


def test_unanswered_probes_learn_what_the_prompt_makes_the_edge_say(edge: EdgeModel) -> None:
    probes = [Probe([65, 66, 7, 8], [7, 8])]
    said = edge.generate([probes[0].prompted], max_tokens=4)[0]
    gates = refine(edge, [probes], torch.zeros(1, *SHAPE), SPEC)
    chat = [(probes[0].bare, [*said, END] if len(said) < 4 else said)]
    assert answer_losses(edge, chat, gates).item() < 0.5 * answer_losses(edge, chat).item()


def test_losses_are_those_of_each_chat_alone(edge: EdgeModel) -> None:
    chats = [([5, 6, 7], [8, END]), ([5], [9, 10, 11, END])]
    together = answer_losses(edge, chats)
    for index, (question, answer) in enumerate(chats):
        logits = edge.logits(torch.tensor([[*question, *answer]]))[0]
        log_probabilities = logits.log_softmax(-1)[len(question) - 1 : -1]
        expected = -log_probabilities.gather(1, torch.tensor(answer)[:, None]).mean()
        torch.testing.assert_close(together[index], expected)


def test_fidelity_is_nothing_without_gates_and_rises_with_refining(edge: EdgeModel) -> None:
    probes = [Probe([65, 66, *question], question) for question in ([7, 8], [9, 3, 4])]
    zero = measure(edge, probes, torch.zeros(SHAPE))
    assert zero.score == pytest.approx(0.0, abs=1e-5)
    gates = refine(edge, [probes], torch.zeros(1, *SHAPE), RefineSpec(steps=80, lr=0.2))
    refined = measure(edge, probes, gates[0])
    assert refined.score is not None
    assert refined.score > 0.1


def test_an_own_answer_that_was_cut_agrees_with_one_that_goes_on(edge: EdgeModel) -> None:
    long = edge.generate([[9, 3, 4]], max_tokens=8)[0]
    assert len(edge.generate([[7, 8]], max_tokens=8)[0]) == 8
    cut = edge.generate([[7, 8]], max_tokens=4)[0]
    probes = [Probe([7, 8], [7, 8], cut, is_own=True), Probe([9, 3, 4], [9, 3, 4], [*long, END])]
    assert measure(edge, probes[:1], torch.zeros(SHAPE)).agreement == 1.0
    assert measure(edge, probes, torch.zeros(SHAPE)).agreement >= 0.5
    other = Probe([7, 8], [7, 8], [*cut[:-1], cut[-1] + 1], is_own=True)
    assert measure(edge, [other], torch.zeros(SHAPE)).agreement == 0.0


def test_a_prompt_without_effect_has_no_fidelity(edge: EdgeModel) -> None:
    fidelity = measure(edge, [Probe([7, 8], [7, 8])], torch.zeros(SHAPE))
    assert fidelity.score is None
    assert fidelity.agreement == 1.0


def test_all_experts_of_a_bootstrap_pool_make_up_the_weight(model: PreTrainedModel) -> None:
    linears = linears_of(model, LINEARS)
    experts = bootstrap_experts(model, LINEARS, columns=64)
    assert set(experts) == set(linears)
    for key, (a_DR, b_RF) in experts.items():
        torch.testing.assert_close((a_DR @ b_RF).mT, linears[key].weight, atol=1e-4, rtol=1e-4)


def test_refining_works_on_a_bootstrap_pool(model: PreTrainedModel) -> None:
    edge = EdgeModel(model, LINEARS, bootstrap_experts(model, LINEARS, columns=32))
    gates = refine(edge, [task(65)], torch.zeros(1, LAYERS, len(LINEARS), 32), SPEC)
    chats = [(probe.bare, probe.answer or ()) for probe in task(65)]
    after = answer_losses(edge, chats, gates.expand(2, -1, -1, -1))
    assert (after < 0.5 * answer_losses(edge, chats)).all()
