"""The pair reader computes its equation, and a prompt without pairs has no gates."""

import pytest
import torch

from loragen.method.pair_reader import PairReader, stack_states

LAYERS, D, V, G = 2, 3, 4, 5


@pytest.fixture
def reader() -> PairReader:
    torch.manual_seed(0)
    reader = PairReader(states=LAYERS * D, vectors=V, gates=G).double().eval()
    reader.norm.load_state_dict(
        {
            **reader.norm.state_dict(),
            "running_mean": torch.randn(G),
            "running_var": torch.rand(G) + 0.5,
        }
    )
    return reader


def draw_states(prompts: int, tokens: int) -> tuple[torch.Tensor, ...]:
    """Return states of two layers."""
    return tuple(torch.randn(prompts, tokens, D, dtype=torch.float64) for _ in range(LAYERS))


@torch.inference_mode()
def test_gates_are_the_normed_sum_of_the_pairs_that_end(reader: PairReader) -> None:
    states = draw_states(2, 7)
    used = torch.arange(7) < torch.tensor([[7], [4]])
    logits, keys, values = reader.read(stack_states(states))
    norm, held = reader.norm, reader.norm.state_dict()
    for row, length in enumerate((7, 4)):
        total, present = torch.zeros(G, dtype=torch.float64), 0.0
        for token in range(length):
            share = 1 / (1 + torch.exp(-logits[row, token]))
            key = reader.key_code.weight @ keys[row, token]
            value = reader.value_code.weight @ values[row, token]
            total += share * key * value
            present = max(present, float(share))
        normed = (total - held["running_mean"]) / (held["running_var"] + norm.eps).sqrt()
        expected = present * (normed * norm.weight + norm.bias)
        torch.testing.assert_close(reader(states, used)[row], expected)


@torch.inference_mode()
def test_a_prompt_without_pairs_has_no_gates(reader: PairReader) -> None:
    for part in (reader.outer, reader.direct):
        part.bias[0] = -100.0
    used = torch.ones(2, 7, dtype=torch.bool)
    assert reader(draw_states(2, 7), used).abs().max() < 1e-9


@torch.inference_mode()
def test_the_order_of_pairs_changes_nothing_and_whose_value_is_whose_does(
    reader: PairReader,
) -> None:
    keys, values = torch.randn(2, V, dtype=torch.float64), torch.randn(2, V, dtype=torch.float64)
    table = reader.bind(keys, values).sum(0)
    torch.testing.assert_close(reader.bind(keys.flip(0), values.flip(0)).sum(0), table)
    assert not torch.allclose(reader.bind(keys, values.flip(0)).sum(0), table, atol=1e-3)
