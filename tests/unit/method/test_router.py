"""The router computes the paper's equations."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from loragen.errors import ArtifactCorrupt
from loragen.method.router import Router, RouterSpec, balance_loss, keep_top_k
from loragen.recipe import Level

Array = npt.NDArray[np.float64]

SHAPE = {"cloud_hidden": 6, "hidden": 5, "layers": 3, "linears": 2, "experts": 4, "top_k": 2}


def trained_router(level: Level) -> Router:
    torch.manual_seed(0)
    router = Router(RouterSpec(level=level, **SHAPE)).double()
    for _ in range(5):
        router(torch.randn(16, 3, 6, dtype=torch.float64))  # moves the running statistics
    return router.eval()


def scores_by_hand(router: Router, meta: Array) -> Array:
    """Eq. 3: BN(f2(SiLU(f1(T)))) with running statistics, one layer at a time."""
    state = {name: tensor.numpy() for name, tensor in router.state_dict().items()}
    hidden = meta @ state["f1.weight"].T + state["f1.bias"]
    hidden = hidden / (1 + np.exp(-hidden))
    layers = []
    for layer in range(meta.shape[1]):
        f2, norm = f"f2.{layer}.", f"norm.{layer}."
        raw = hidden[:, layer] @ state[f2 + "weight"].T + state[f2 + "bias"]
        centred = raw - state[norm + "running_mean"]
        unit = centred / np.sqrt(state[norm + "running_var"] + 1e-5)
        layers.append(unit * state[norm + "weight"] + state[norm + "bias"])
    return np.stack(layers, axis=1)


def test_dense_gates_are_equation_3() -> None:
    router = trained_router(Level.DENSE)
    meta = torch.randn(7, 3, 6, dtype=torch.float64)
    expected = scores_by_hand(router, meta.numpy()).reshape(7, 3, 2, 4)
    np.testing.assert_allclose(router(meta).detach().numpy(), expected, atol=1e-12)


def test_paper_gates_are_equations_3_6_and_7() -> None:
    router = trained_router(Level.PAPER)
    meta = torch.randn(7, 3, 6, dtype=torch.float64)
    scores = scores_by_hand(router, meta.numpy())
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = np.zeros_like(shares)
    for index in np.ndindex(shares.shape[:2]):
        kept = np.argsort(shares[index])[-2:]
        expected[index][kept] = shares[index][kept] / shares[index][kept].sum()
    np.testing.assert_allclose(router(meta).detach().numpy()[:, :, 0], expected, atol=1e-12)


def test_kept_gates_sum_to_one_and_keep_the_order() -> None:
    gates = keep_top_k(torch.tensor([[0.1, 0.5, 0.3, 0.1]]), 2)
    torch.testing.assert_close(gates, torch.tensor([[0.0, 0.625, 0.375, 0.0]]))


def test_balance_loss_is_zero_for_even_use_and_large_for_collapse() -> None:
    even = torch.full((8, 2, 1, 4), 0.25)
    collapsed = torch.zeros(8, 2, 1, 4)
    collapsed[..., 0] = 1
    assert balance_loss(even).item() == pytest.approx(0)
    assert balance_loss(collapsed).item() == pytest.approx(3)  # (sigma / mu)^2 = n - 1


def test_spec_survives_its_config_and_refuses_others() -> None:
    spec = RouterSpec(level=Level.PAPER, **SHAPE)
    assert RouterSpec.from_config(spec.to_config()) == spec
    with pytest.raises(ArtifactCorrupt):
        RouterSpec.from_config({**spec.to_config(), "top_k": 9})
    with pytest.raises(ArtifactCorrupt):
        RouterSpec.from_config({"level": 1})
