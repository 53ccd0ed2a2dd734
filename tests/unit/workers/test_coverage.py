from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from config.edge_model import Backend
from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.method.pool import PoolSpec
from workers.coverage import choose_backend

FFN = PoolSpec(
    layers=2,
    linears=("gate", "up", "down"),
    experts=4,
    rank=1,
    edge_fingerprint="0" * 64,
    template_hash="0" * 64,
)
LLAMA = ("self_attn.q_proj.weight", *(f"mlp.{name}_proj.weight" for name in FFN.linears))


def model(folder: Path, *weights: str, layers: int = 2, prefix: str = "model.") -> Path:
    """Write a checkpoint with these weights in each layer, a file for every layer."""
    for layer in range(layers):
        names = [f"{prefix}layers.{layer}.{weight}" for weight in weights]
        tensors = {name: np.zeros(1, dtype=np.float32) for name in names}
        save_file(tensors, folder / f"model-{layer}.safetensors")
    return folder


@pytest.mark.parametrize("prefix", ["model.", "language_model.model.", ""])
def test_the_ffn_of_llama_like_models_is_covered(tmp_path: Path, prefix: str) -> None:
    assert choose_backend("auto", FFN, model(tmp_path, *LLAMA, prefix=prefix)) == "gate"


def test_an_ffn_without_gate_is_covered(tmp_path: Path) -> None:
    folder = model(tmp_path, "mlp.up_proj.weight", "mlp.down_proj.weight")
    assert choose_backend("auto", replace(FFN, linears=("up", "down")), folder) == "gate"


@pytest.mark.parametrize("suffix", ["qweight", "weight_packed", "weight"])
def test_quantised_weights_are_covered_by_their_names(tmp_path: Path, suffix: str) -> None:
    names = [f"mlp.{linear}_proj.{part}" for linear in FFN.linears for part in (suffix, "scales")]
    assert choose_backend("auto", FFN, model(tmp_path, *names)) == "gate"


@pytest.mark.parametrize(
    ("linears", "weights", "layers"),
    [
        (("q", "v"), LLAMA, 2),
        (("gate", "up", "down", "o"), LLAMA, 2),
        (("up", "gate", "down"), LLAMA, 2),  # a merged layer has them in the other order
        (("up", "down"), LLAMA, 2),  # vLLM keeps gate and up in one layer
        (("gate_up", "down"), ("mlp.gate_up_proj.weight", "mlp.down_proj.weight"), 2),
        (FFN.linears, [name.replace("mlp", "feed_forward") for name in LLAMA], 2),
        (FFN.linears, [name.replace("mlp", "mlp.experts.0") for name in LLAMA], 2),
        (FFN.linears, LLAMA, 3),
        (FFN.linears, LLAMA, 1),
    ],
)
def test_all_else_is_materialised_and_refused_where_gate_is_asked_for(
    tmp_path: Path, linears: tuple[str, ...], weights: tuple[str, ...], layers: int
) -> None:
    pool = replace(FFN, linears=linears)
    folder = model(tmp_path, *weights, layers=layers)
    assert choose_backend("auto", pool, folder) == "materialise"
    with pytest.raises(ConfigError, match="auto or materialise"):
        choose_backend("gate", pool, folder)


@pytest.mark.parametrize("wanted", ["gate", "materialise"])
def test_an_operator_may_choose(tmp_path: Path, wanted: Backend) -> None:
    assert choose_backend(wanted, FFN, model(tmp_path, *LLAMA)) == wanted


def test_weights_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactCorrupt, match="cannot read"):
        choose_backend("auto", FFN, tmp_path)
