"""The binder computes its equation."""

import torch

from loragen.method.binder import Binder


@torch.inference_mode()
def test_sums_are_over_used_tokens_of_products_of_two_views() -> None:
    torch.manual_seed(0)
    binder = Binder(states=2 * 3, gates=5).double()
    layers = tuple(torch.randn(2, 7, 3, dtype=torch.float64) for _ in range(2))
    used = torch.arange(7) < torch.tensor([[7], [4]])
    u, w = binder.parameters()
    expected = torch.zeros(2, 5, dtype=torch.float64)
    for row, length in enumerate((7, 4)):
        for token in range(length):
            states = [layer[row, token] for layer in layers]
            unit = torch.cat(
                [s / (s.pow(2).mean() + torch.finfo(s.dtype).eps).sqrt() for s in states]
            )
            expected[row] += (u @ unit) * (w @ unit)
    torch.testing.assert_close(binder(layers, used), expected)


@torch.inference_mode()
def test_a_pair_counts_and_not_only_which_words_there_are() -> None:
    """Two tables of the same words in other pairs have other sums, as states of pairs differ."""
    torch.manual_seed(0)
    binder = Binder(states=2 * 3, gates=5)
    keys, values = torch.randn(2, 3), torch.randn(2, 3)

    def sums(order: list[int]) -> torch.Tensor:
        used = torch.ones(1, 2, dtype=torch.bool)
        total: torch.Tensor = binder((keys[None], values[None, order]), used)
        return total

    assert not torch.allclose(sums([0, 1]), sums([1, 0]), atol=1e-3)
