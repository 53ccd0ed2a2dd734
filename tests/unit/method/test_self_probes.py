"""Self-generated probes are what the edge model says in the user's place."""

from typing import Any
from unittest.mock import patch

import pytest
import torch

from loragen.errors import InvalidRequest
from loragen.method.chat_turns import user_turn
from loragen.method.edge import EdgeModel
from loragen.method.self_probes import (
    _named_tokens,
    _TowardsPrompt,
    expected_messages,
)
from loragen.own_template import OwnTemplate
from tests.fakes.tiny import TEMPLATE, TinyEdge, byte_tokenizer

TURN = ("<|system|>Be kind.<|end|><|user|>", "<|end|><|assistant|>")
SYSTEM = [{"role": "system", "content": "Be kind."}]


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> EdgeModel:
    tiny = TinyEdge.make(tmp_path_factory.mktemp("tiny"))
    return EdgeModel.load(tiny.model, tiny.pool)


class Scripted:
    """In place of a model: gives rows of ids, and remembers what it was given."""

    def __init__(self, *rounds: list[str]) -> None:
        self.rounds = [[_ids(text) for text in texts] for texts in rounds]
        self.read: list[int] = []
        self.rows = 0
        self.options: list[dict[str, Any]] = []

    def generate(self, ids: torch.Tensor, **options: Any) -> torch.Tensor:
        self.read, self.rows = ids[0].tolist(), len(ids)
        self.options.append(options)
        said = self.rounds.pop(0)
        longest = max(map(len, said))
        rows = [[*self.read, *ids, *[0] * (longest - len(ids))] for ids in said]
        return torch.tensor(rows)


def _ids(text: str) -> list[int]:
    ids: list[int] = byte_tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


def scripted(
    edge: EdgeModel, *rounds: list[str], count: int, varied: bool = True
) -> tuple[list[str], Scripted]:
    model = Scripted(*rounds)
    with patch.object(edge.model, "generate", model.generate):
        drawn = expected_messages(edge, byte_tokenizer(), TURN, count=count, varied=varied)
    return drawn, model


def test_the_turn_is_what_the_template_prints_around_a_message() -> None:
    assert user_turn(OwnTemplate(TEMPLATE), SYSTEM, ()) == TURN


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages[-1].content }}"])
def test_a_template_without_a_turn_is_refused(template: str) -> None:
    with pytest.raises(InvalidRequest, match="template"):
        user_turn(OwnTemplate(template), SYSTEM, ())


def test_varied_messages_end_where_a_users_turn_ends_and_come_once(edge: EdgeModel) -> None:
    messages, model = scripted(
        edge,
        ["Hi!<|end|>", " Hi! <|end|><|assistant|>x", "never ends", "<|end|>", "Who?<|end|>"],
        count=2,
    )
    assert messages == ["Hi!", "Who?"]
    assert model.read == _ids(TURN[0])


def test_rounds_go_on_until_there_are_enough_and_not_for_ever(edge: EdgeModel) -> None:
    assert scripted(edge, ["a<|end|>"], ["b<|end|>"], ["c<|end|>"], count=2)[0] == ["a", "b"]
    assert scripted(edge, *[["a<|end|>"]] * 6, count=2)[0] == ["a"]


def test_usual_messages_come_as_often_as_they_are_drawn(edge: EdgeModel) -> None:
    drawn = [f"{number}<|end|>" for number in [0, 0, 0, *range(1, 8)]]
    messages, model = scripted(edge, ["never ends", *drawn], count=10, varied=False)
    assert messages == ["0", "0", "0", *map(str, range(1, 8))]
    (options,) = model.options
    assert options["min_p"] == 0.2


@pytest.mark.parametrize("varied", [False, True])
def test_a_real_model_draws_the_same_messages_again_and_leaves_the_random_state(
    edge: EdgeModel, varied: bool
) -> None:
    before = torch.random.get_rng_state()
    drawn = [
        expected_messages(edge, byte_tokenizer(), TURN, count=8, varied=varied) for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    if varied:  # an untrained model's usual messages have no end
        assert 2 <= len(set(drawn[0])) == len(drawn[0]) <= 8
    assert torch.equal(before, torch.random.get_rng_state())


def test_messages_are_those_that_are_drawn_without_a_kept_prefix(edge: EdgeModel) -> None:
    kept = expected_messages(edge, byte_tokenizer(), TURN, count=8)
    with patch.object(EdgeModel, "keeps_all", False):
        assert expected_messages(edge, byte_tokenizer(), TURN, count=8) == kept


def test_a_small_memory_draws_as_many_in_parts(edge: EdgeModel) -> None:
    scripted_rounds = [[f"{number}<|end|>"] for number in range(6 * 4)]
    row_tokens = len(_ids(TURN[0])) + 48
    model = Scripted(*scripted_rounds)
    with (
        patch.object(EdgeModel, "cache_tokens", 4 * row_tokens),
        patch.object(edge.model, "generate", model.generate),
    ):
        drawn = expected_messages(edge, byte_tokenizer(), TURN, count=8, varied=True)
    assert drawn == [str(number) for number in range(8)]
    assert model.rows == 4


def towards() -> tuple[_TowardsPrompt, list[int]]:
    """Return what leans towards "ab", and the tokens of that."""
    tokenizer = byte_tokenizer()
    named: list[int] = tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert not set(named) & set(tokenizer.all_special_ids)
    return _TowardsPrompt(_named_tokens(tokenizer, "ab", 300)), named


def test_every_second_row_leans_towards_what_the_prompt_names() -> None:
    leaning, named = towards()
    changed = leaning(torch.zeros(4, 1), torch.zeros(4, 300)).nonzero()
    assert {(int(row), int(token)) for row, token in changed} == {
        (row, token) for row in (1, 3) for token in named
    }


def test_it_leans_only_where_such_a_word_might_be() -> None:
    leaning, named = towards()
    scores = torch.zeros(4, 300)
    scores[:, named[0]] = 8.0  # nine tenths of all: the form of a message
    leant = leaning(torch.zeros(4, 1), scores)
    assert torch.equal(leant, scores)  # beside such a token the other is too unlikely to fit in


def test_a_message_leans_until_it_says_what_it_leans_towards() -> None:
    """Else it would be of nothing but such words."""
    leaning, named = towards()
    flat = torch.zeros(4, 300)
    leaning(torch.zeros(4, 1, dtype=torch.long), flat)
    said = torch.tensor([[named[0]], [named[0]], [named[0]], [0]])
    assert leaning(said, flat)[:, named[1]].tolist() == [0.0, 0.0, 0.0, 4.0]
    other = torch.zeros(4, 1, dtype=torch.long)
    assert leaning(other, flat)[:, named[1]].tolist() == [0.0, 0.0, 0.0, 4.0]


def test_tokens_that_the_model_does_not_have_are_not_named() -> None:
    tokenizer = byte_tokenizer()
    assert max(tokenizer.all_special_ids) > 200
    assert _named_tokens(tokenizer, "ab", 200).sum() == 2
