"""Self-generated probes are what the edge model says in the user's place."""

from typing import Any
from unittest.mock import patch

import pytest
import torch

from loragen.errors import InvalidRequest
from loragen.method.edge import EdgeModel
from loragen.method.self_probes import expected_messages, user_turn
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

    def generate(self, ids: torch.Tensor, **_: Any) -> torch.Tensor:
        self.read = ids[0].tolist()
        said = self.rounds.pop(0)
        longest = max(map(len, said))
        rows = [[*self.read, *ids, *[0] * (longest - len(ids))] for ids in said]
        return torch.tensor(rows)


def _ids(text: str) -> list[int]:
    ids: list[int] = byte_tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


def scripted(edge: EdgeModel, *rounds: list[str], count: int) -> tuple[list[str], Scripted]:
    model = Scripted(*rounds)
    with patch.object(edge.model, "generate", model.generate):
        return expected_messages(edge, byte_tokenizer(), TURN, count=count), model


def test_the_turn_is_what_the_template_prints_around_a_message() -> None:
    assert user_turn(OwnTemplate(TEMPLATE), SYSTEM, ()) == TURN


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages[-1].content }}"])
def test_a_template_without_a_turn_is_refused(template: str) -> None:
    with pytest.raises(InvalidRequest, match="template"):
        user_turn(OwnTemplate(template), SYSTEM, ())


def test_messages_end_where_a_users_turn_ends_and_come_once(edge: EdgeModel) -> None:
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


def test_a_real_model_draws_the_same_messages_again_and_leaves_the_random_state(
    edge: EdgeModel,
) -> None:
    before = torch.random.get_rng_state()
    drawn = [expected_messages(edge, byte_tokenizer(), TURN, count=8) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert 2 <= len(set(drawn[0])) == len(drawn[0]) <= 8
    assert torch.equal(before, torch.random.get_rng_state())
