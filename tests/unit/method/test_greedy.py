"""Answers from kept keys and values are those of whole rows that are read again."""

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loragen.method.edge import EdgeModel
from loragen.method.greedy import greedy, read_prefix, shared_length
from loragen.method.probes import answer_losses, answers
from tests.fakes.tiny import TinyEdge


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def edge(tiny: TinyEdge) -> EdgeModel:
    return EdgeModel.load(tiny.model, tiny.pool)


@pytest.mark.parametrize(
    ("rows", "length"),
    [([[1, 2, 3]], 2), ([[1, 2], [1, 2]], 1), ([[1, 2, 3], [1, 4]], 1), ([[1], [2]], 0)],
)
def test_every_row_keeps_a_token_of_its_own(rows: list[list[int]], length: int) -> None:
    assert shared_length(rows) == length


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), has_gates=st.booleans(), shared=st.integers(0, 12))
def test_answers_are_those_of_the_reference(
    edge: EdgeModel, tiny: TinyEdge, seed: int, has_gates: bool, shared: int
) -> None:
    rng = Random(seed)
    vocabulary = edge.model.config.vocab_size
    prefix = [rng.randrange(vocabulary) for _ in range(shared)]
    rows = [
        [*prefix, *(rng.randrange(vocabulary) for _ in range(rng.randint(1, 9)))]
        for _ in range(rng.randint(1, 6))
    ]
    gates = None
    if has_gates:
        spec = tiny.pool.spec
        torch.manual_seed(seed)
        gates = torch.randn(len(rows), spec.layers, len(spec.linears), spec.columns)
    assert greedy(edge, rows, gates, max_tokens=12) == edge.generate_ended(
        rows, gates, max_tokens=12
    )


def test_rows_that_end_leave_the_others_alone(
    edge: EdgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[1, number, 3 + number] for number in range(4, 12)]
    said = edge.generate_ended(rows, max_tokens=6)
    monkeypatch.setattr(edge.model.config, "eos_token_id", said[0][2])
    wanted = edge.generate_ended(rows, max_tokens=6)
    assert len(wanted[0]) <= 3
    assert len({len(answer) for answer in wanted}) > 1
    assert greedy(edge, rows, max_tokens=6) == wanted


@pytest.mark.parametrize("shared", [0, 1, 7])
def test_losses_are_those_of_whole_rows(edge: EdgeModel, shared: int) -> None:
    rng = Random(0)
    prefix = [rng.randrange(200) for _ in range(shared)]
    chats = [
        ([*prefix, *(rng.randrange(200) for _ in range(size))], [4, 5, 6][:size])
        for size in (1, 3, 2)
    ]
    read: list[int] = []
    decoder = edge.model.get_decoder()
    handle = decoder.register_forward_pre_hook(
        lambda _, __, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    with torch.no_grad():
        once = answer_losses(edge, chats)
    handle.remove()
    assert sum(read) == shared + 3 * 6  # rows of three tokens and three of an answer
    torch.testing.assert_close(once, answer_losses(edge, chats).detach())


def test_models_that_forget_read_whole_rows(
    edge: EdgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[1, 2, number] for number in range(3)]
    wanted = greedy(edge, rows, max_tokens=5)
    monkeypatch.setattr(edge.model.config, "sliding_window", 2, raising=False)
    monkeypatch.setattr(edge.model.config, "layer_types", ["sliding_attention"] * 2, raising=False)
    assert not edge.keeps_all
    assert greedy(edge, rows, max_tokens=5) == wanted  # by the model, which attends to all


def test_any_of_several_end_tokens_ends_an_answer(
    edge: EdgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[1, number, 3 + number] for number in range(4, 12)]
    said = edge.generate_ended(rows, max_tokens=6)
    monkeypatch.setattr(edge.model.config, "eos_token_id", [said[0][2], said[1][3]])
    assert greedy(edge, rows, max_tokens=6) == edge.generate_ended(rows, max_tokens=6)
    assert len(edge.generate_ended(rows, max_tokens=6)[1]) <= 4
    (answer,) = answers(edge, rows[:1], max_tokens=6)
    assert answer == greedy(edge, rows[:1], max_tokens=6)[0] == said[0][:3]  # with its own end
    assert edge.generate(rows[:1], max_tokens=6) == [said[0][:2]]


def test_a_prefix_is_read_once_for_all_rows(edge: EdgeModel) -> None:
    ids = [5, 6, 7]
    cache = read_prefix(edge, ids, rows=4)
    states = edge.go_on(torch.tensor([[8], [9], [8], [8]]), cache)
    whole = edge.states(torch.tensor([[*ids, 8]]))
    torch.testing.assert_close(states[:1], whole[:, -1:])
    torch.testing.assert_close(states[2], states[0])
