"""The reader sees a prompt and its meta tokens, whatever else is in the batch."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from loragen.method.reader import Reader
from loragen.method.router import RouterSpec
from loragen.recipe import Level

SPEC = RouterSpec(level=Level.DENSE, cloud_hidden=32, hidden=16, layers=3, linears=2, experts=4)
BINDING = replace(SPEC, binds=1)

both = pytest.mark.parametrize("spec", [SPEC, BINDING], ids=["meta", "binder"])


def reader(spec: RouterSpec = SPEC) -> Reader:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return Reader(LlamaModel(config), spec).eval()


@both
@torch.inference_mode()
def test_padding_changes_no_gate(spec: RouterSpec) -> None:
    own = reader(spec)
    ids = torch.randint(1, 50, (2, 9))
    used = torch.ones_like(ids, dtype=torch.bool)
    used[1, 5:] = False
    together = own(ids, used)
    alone = own(ids[1:, :5], used[1:, :5])
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


@both
@torch.inference_mode()
def test_every_token_of_the_prompt_counts(spec: RouterSpec) -> None:
    own = reader(spec)
    ids = torch.randint(1, 50, (1, 9))
    used = torch.ones_like(ids, dtype=torch.bool)
    gates = own(ids, used)
    for position in range(9):
        changed = ids.clone()
        changed[0, position] = changed[0, position] % 49 + 1
        assert not torch.allclose(own(changed, used), gates, atol=1e-6)


def test_own_tensors_are_all_but_the_cloud_model() -> None:
    names = set(reader(BINDING).own_tensors())
    assert {"meta_LD", "binder.views.0.weight", "binder.views.1.weight"} <= names
    assert not any(name.startswith("cloud.") for name in names)


@torch.inference_mode()
def test_the_binders_sums_go_through_the_routers_norm() -> None:
    own = reader(BINDING)
    ids = torch.randint(1, 50, (2, 9))
    used = torch.ones_like(ids, dtype=torch.bool)
    before = own(ids, used)
    assert own.binder is not None
    weights = list(own.binder.parameters())
    for weight in weights:
        weight.mul_(2.0)
    after = own(ids, used)
    for weight in weights:
        weight.zero_()
    without = own(ids, used)
    # A new norm's statistics are 0 and 1: it is linear, and sums of products grow fourfold.
    torch.testing.assert_close(after - without, 4 * (before - without), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(before, without)
