"""A bootstrap pool is a pool of the model's own directions, and says what it cannot be made of."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.method.bootstrap import bootstrap_pool, singular_pairs
from loragen.method.edge import EdgeModel, linears_of
from loragen.method.pool import Pool
from tests.fakes.tiny import FFN_WIDTH, LAYERS, LINEARS, WIDTH, TinyEdge

HASH = "cd" * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyEdge.make(tmp_path_factory.mktemp("tiny")).model


def make(folder: Path, out: Path, *, columns: int = 8) -> Pool:
    return bootstrap_pool(folder, out, columns=columns, template_hash=HASH, progress=lambda _: None)


def test_the_pool_is_of_this_model_and_template(folder: Path, tmp_path: Path) -> None:
    told: list[str] = []
    out = tmp_path / "pool.safetensors"
    pool = bootstrap_pool(folder, out, columns=8, template_hash=HASH, progress=told.append)
    assert (pool.spec.layers, pool.spec.linears) == (LAYERS, LINEARS)
    assert (pool.spec.experts, pool.spec.rank, pool.spec.template_hash) == (8, 1, HASH)
    assert [path.name for path in tmp_path.iterdir()] == ["pool.safetensors"]
    assert len(told) == LAYERS * len(LINEARS)
    EdgeModel.load(folder, Pool.load(out))  # refuses the pool of another model


def test_all_its_gates_at_one_double_the_linear(folder: Path, tmp_path: Path) -> None:
    pool = make(folder, tmp_path / "pool.safetensors", columns=WIDTH)
    edge = EdgeModel.load(folder, pool)
    modules = linears_of(edge.model, LINEARS)
    for key, (a_DR, b_RF) in pool.tensors.items():
        torch.testing.assert_close((a_DR @ b_RF).mT, modules[key].weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("shape", [(FFN_WIDTH, WIDTH), (WIDTH, FFN_WIDTH)])
def test_the_largest_pairs_come_first(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight_FD = torch.randn(shape)
    _, s_K, v_KD = torch.linalg.svd(weight_FD, full_matrices=False)
    a_DR, b_RF = singular_pairs(weight_FD, 4)
    torch.testing.assert_close(b_RF.norm(dim=1), s_K[:4], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close((a_DR.mT @ v_KD[:4].mT).abs(), torch.eye(4), atol=1e-3, rtol=0)


def test_a_weight_of_nothing_gives_pairs_of_nothing() -> None:
    a_DR, b_RF = singular_pairs(torch.zeros(4, 6), 2)
    assert torch.isfinite(a_DR).all()
    assert not b_RF.any()


@pytest.mark.parametrize("columns", [0, 257])
def test_a_pool_has_its_bounds(folder: Path, tmp_path: Path, columns: int) -> None:
    with pytest.raises(ConfigError, match="from 1 to 256"):
        make(folder, tmp_path / "pool.safetensors", columns=columns)


def test_more_columns_than_the_model_has_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"more than the model's linears have, {WIDTH}"):
        make(folder, tmp_path / "pool.safetensors", columns=WIDTH + 1)
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_build_is_named(tmp_path: Path) -> None:
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ArtifactCorrupt, match="a gpt2 has no gate, up, down"):
        make(tmp_path / "gpt2", tmp_path / "pool.safetensors")


def test_a_model_that_cannot_be_loaded_is_named(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "config.json").write_text(json.dumps({"model_type": "no-such-thing"}))
    with pytest.raises(ArtifactCorrupt, match="cannot load the model"):
        make(broken, tmp_path / "pool.safetensors")
