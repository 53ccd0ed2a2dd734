"""A generator run goes through its phases, and goes on where it stopped."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.method.generator import Generator
from loragen.recipe import Level
from loragen.suite.small import SMALL
from loragen.suite.tables import GLOSSARY
from loragen.suite.tenants import TENANTS
from loragen.template import FILE_NAME
from loragen.training.batches import Renderer, StreamSpec, resumable_batches
from loragen.training.checkpoint import Layout, save_tokenizer, train_generator
from loragen.training.curriculum import Phase
from loragen.training.generator_run import GeneratorRun
from loragen.training.generator_spec import GeneratorRunSpec
from loragen.training.growth import CloudSize
from loragen.training.pretrain import EdgeSize, new_model
from loragen.training.tokenizer import COMPILED_TEMPLATE, train_tokenizer

SPEC = GeneratorRunSpec(
    Level.DENSE,
    experts=4,
    rank=1,
    phases=(
        Phase("bind", 0, 2, grows=True, is_frozen=True),
        Phase("rules", 3, 3, text_share=0.5, short_share=1.0),
        Phase("prompts", 3, 2, text_share=1.0, decays=True),
    ),
    cloud=CloudSize(hidden=64, layers=3),
    binds=True,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(SMALL, 2048, seed=0)


@pytest.fixture
def edge(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return new_model(tokenizer, EdgeSize(hidden=32, layers=2, heads=1, intermediate=48))


def test_a_run_that_stopped_ends_as_one_that_did_not(
    tmp_path: Path, edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    def run(state: str) -> GeneratorRun:
        return GeneratorRun(edge, tokenizer, SPEC, 3, tmp_path / state)

    whole = run("whole.pt")
    assert whole.train()
    stopped = run("stopped.pt")
    for steps in (1, 3, 2):
        assert not stopped.train(steps=steps)
        stopped = run("stopped.pt")
    assert stopped.position.total == 6
    assert stopped.train()
    for one, other in ((whole.reader, stopped.reader), (whole.pool, stopped.pool)):
        for name, weight in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], weight)


def test_a_run_goes_on_from_weights_alone(
    tmp_path: Path, edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    first = GeneratorRun(edge, tokenizer, SPEC, 3, tmp_path / "first.pt")
    first.train(steps=3)
    second = GeneratorRun(edge, tokenizer, SPEC, 4, tmp_path / "second.pt")
    second.go_on_from(first.reader, first.pool.experts(), first.position.to_state())
    assert second.position.to_state() == first.position.to_state()
    for one, other in ((first.reader, second.reader), (first.pool, second.pool)):
        for name, weight in one.state_dict().items():
            assert torch.equal(other.state_dict()[name], weight)
    assert second.train()


def test_a_published_run_goes_on_to_its_end(
    tmp_path: Path, edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    layout = Layout(tmp_path)
    edge.save_pretrained(layout.edge)
    save_tokenizer(tokenizer, layout.edge)
    (layout.edge / FILE_NAME).write_text(COMPILED_TEMPLATE, "utf-8")
    assert not train_generator(layout, SPEC, 3, seconds=0)
    state, position = layout.state(SPEC.level), layout.position(SPEC.level)
    state.unlink()  # as in a clone
    assert position.exists()
    assert train_generator(layout, SPEC, 3)
    assert not state.exists()
    Generator.load(layout.generator(SPEC.level))
    files = sorted(layout.generator(SPEC.level).iterdir())
    before = [file.read_bytes() for file in files]
    assert train_generator(layout, SPEC, 3)  # as after a stop before anybody knew that it was over
    assert [file.read_bytes() for file in files] == before


def test_a_frozen_phase_leaves_the_cloud_model_as_it_is(
    tmp_path: Path, edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    run = GeneratorRun(edge, tokenizer, SPEC, 3, tmp_path / "state.pt")

    def weights() -> dict[str, torch.Tensor]:
        return {name: weight.clone() for name, weight in run.reader.state_dict().items()}

    def changed(before: dict[str, torch.Tensor]) -> set[str]:
        return {name for name, weight in weights().items() if not torch.equal(weight, before[name])}

    start = weights()
    run.train(steps=2)
    assert "binder.views.0.weight" in changed(start)
    assert not any(name.startswith("cloud.") for name in changed(start))
    run.train(steps=1)
    assert any(name.startswith("cloud.") for name in changed(start))


def test_training_leaves_the_edge_model_as_it_is(
    tmp_path: Path, edge: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = {name: weight.clone() for name, weight in edge.state_dict().items()}
    run = GeneratorRun(edge, tokenizer, SPEC, 3, tmp_path / "state.pt")
    pool = {name: weight.clone() for name, weight in run.pool.state_dict().items()}
    run.train(steps=2)
    assert all(torch.equal(weight, before[name]) for name, weight in edge.state_dict().items())
    assert any(not torch.equal(weight, pool[n]) for n, weight in run.pool.state_dict().items())


@pytest.mark.parametrize(
    ("most_rows", "expected"), [(2, {2}), (4, {2, 3, 4}), (None, {2, 3, 4, 5, 6})]
)
def test_tables_of_a_phase_have_at_most_its_rows(
    tokenizer: PreTrainedTokenizerBase, most_rows: int | None, expected: set[int]
) -> None:
    table = replace(GLOSSARY, wordings=("Words:{table}",), rows=("{key} = {value}",))
    spec = StreamSpec(
        replace(TENANTS, seen=(table,)),
        rows=8,
        segments=1,
        plain_share=0.0,
        short_share=1.0,
        most_rows=most_rows,
    )
    batches = islice(resumable_batches(Renderer(tokenizer), spec, "rows", 0), 8)
    texts = [text for batch in batches for text in tokenizer.batch_decode(batch.prompts)]
    assert {text.count("=") for text in texts} == expected


def test_a_phase_binds_the_families_that_it_names(tokenizer: PreTrainedTokenizerBase) -> None:
    spec = StreamSpec(
        TENANTS,
        rows=8,
        segments=1,
        plain_share=0.0,
        short_share=1.0,
        binding_share=1.0,
        bindings=("kind",),
    )
    batches = islice(resumable_batches(Renderer(tokenizer), spec, "rows", 0), 4)
    texts = [text for batch in batches for text in tokenizer.batch_decode(batch.prompts)]
    assert len(texts) == 32
    assert all("question" in text and "statement" in text for text in texts)
