"""A grown model computes what the model did that it grew from, and every part of it can learn."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from loragen.training.growth import CloudSize, grow


@pytest.fixture
def model() -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
    )
    model = LlamaModel(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.eval()
    return model


@pytest.mark.parametrize("size", [CloudSize(32, 5), CloudSize(48, 3), CloudSize(64, 7)])
def test_a_grown_model_has_the_same_states_and_zeros_behind_them(
    model: LlamaModel, size: CloudSize
) -> None:
    ids = torch.randint(50, (2, 17), generator=torch.Generator().manual_seed(1))
    grown = grow(model, size).eval()
    assert (grown.config.hidden_size, len(grown.layers)) == (size.hidden, size.layers)
    with torch.inference_mode():
        states, expected = grown(ids).last_hidden_state, model(ids).last_hidden_state
    torch.testing.assert_close(states[..., :32], expected, atol=1e-4, rtol=1e-4)
    assert not states[..., 32:].any()


def test_new_layers_and_columns_learn(model: LlamaModel) -> None:
    grown = grow(model, CloudSize(64, 5))
    embedded = torch.randn(2, 9, 64)  # meta tokens fill all columns
    grown(inputs_embeds=embedded).last_hidden_state.pow(3).sum().backward()
    silent = [
        name
        for name, parameter in grown.named_parameters()
        if "o_proj" in name or "down_proj" in name
        if parameter.grad is None or not parameter.grad[32:].any()
    ]
    assert silent == []


@pytest.mark.parametrize("size", [CloudSize(16, 3), CloudSize(32, 2), CloudSize(40, 3)])
def test_a_size_that_does_not_fit_is_refused(model: LlamaModel, size: CloudSize) -> None:
    with pytest.raises(ValueError, match=r"smaller|heads"):
        grow(model, size)
