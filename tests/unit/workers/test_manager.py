from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import CompilationMode, CUDAGraphMode
from vllm.lora.layers import LoRAMapping
from vllm.lora.request import LoRARequest

from loragen.errors import ArtifactCorrupt, ConfigError, RecipeInvalid
from loragen.recipe import Level, Recipe
from tests.fakes.tiny import FFN_WIDTH, LINEARS, RANK, WIDTH, TinyEdge
from workers.manager import GateSpaceManager
from workers.product import PoolProduct
from workers.spec import WorkerSpec

SLOTS = 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))


def engine_config(
    tiny: TinyEdge, *, pool_id: str | None = None, stages: int = 1, graphs: bool = False
) -> Any:
    """Return what a manager reads of vLLM's configuration."""
    pool = tiny.generator / "pool.safetensors"
    spec = WorkerSpec("tiny", tiny.pool.spec.template_hash, pool, pool_id or tiny.pool.id)
    model = SimpleNamespace(
        dtype=torch.float32,
        get_vocab_size=lambda: 300,
        is_encoder_decoder=False,
        hf_config=SimpleNamespace(get_text_config=lambda: SimpleNamespace()),
    )
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=SLOTS, max_num_batched_tokens=20),
        lora_config=SimpleNamespace(max_loras=SLOTS),
        parallel_config=SimpleNamespace(pipeline_parallel_size=stages),
        compilation_config=SimpleNamespace(
            mode=CompilationMode.NONE,
            cudagraph_mode=CUDAGraphMode.FULL if graphs else CUDAGraphMode.NONE,
        ),
        model_config=model,
        additional_config=spec.additional_config(),
    )


def make_manager(tiny: TinyEdge, **options: Any) -> GateSpaceManager:
    return GateSpaceManager(engine_config(tiny, **options), torch.device("cpu"), {})


def request(recipe: Recipe, number: int) -> LoRARequest:
    return LoRARequest(recipe.id, number, recipe.id, base_model_name=recipe.text)


def activate(manager: GateSpaceManager, tokens: list[int], *requests: LoRARequest) -> None:
    manager.set_active_adapters(set(requests), LoRAMapping(tuple(tokens), tuple(tokens), True))


def gates_of_token(manager: GateSpaceManager, token: int) -> torch.Tensor:
    return manager.gates[:, manager.step.rows_T[token]]


def test_each_token_points_at_the_gates_of_its_recipe_and_others_at_zeros(tiny: TinyEdge) -> None:
    manager = make_manager(tiny)
    dense, paper = tiny.recipe(1), tiny.recipe(2, level=Level.PAPER)
    activate(manager, [5, 0, 9, 9], request(dense, 5), request(paper, 9))
    for token, recipe in ((0, dense), (2, paper), (3, paper)):
        expected = torch.tensor(recipe.expand(linears=len(LINEARS), rank=RANK))
        assert torch.equal(gates_of_token(manager, token), expected)
    assert not gates_of_token(manager, 1).any()
    assert manager.step.has_recipes


def test_a_step_without_recipes_skips_the_product_unless_a_graph_was_captured(
    tiny: TinyEdge,
) -> None:
    for graphs in (False, True):
        manager = make_manager(tiny, graphs=graphs)
        activate(manager, [0, 0, 0])
        assert manager.step.has_recipes is graphs
        assert not gates_of_token(manager, 2).any()


def test_recipes_come_and_go_without_end(tiny: TinyEdge) -> None:
    manager = make_manager(tiny)
    for seed in range(10):
        recipe = tiny.recipe(seed)
        activate(manager, [seed + 1], request(recipe, seed + 1))
        expected = torch.tensor(recipe.expand(linears=len(LINEARS), rank=RANK))
        assert torch.equal(gates_of_token(manager, 0), expected)
        assert len(manager.list_adapters()) <= SLOTS
    assert not manager.gates[:, -1].any()


def test_a_step_like_the_last_is_recognised_without_a_look_at_its_recipes(
    tiny: TinyEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make_manager(tiny)
    requests = [request(tiny.recipe(seed), seed) for seed in (1, 2)]
    activate(manager, [1, 2, 0], *requests)
    rows = manager.step.rows_T.clone()
    with monkeypatch.context() as patch:
        patch.setattr(manager, "_admit", None)
        activate(manager, [1, 2, 0], *requests)
    assert torch.equal(manager.step.rows_T, rows)
    activate(manager, [2, 0, 1], *requests)
    assert torch.equal(manager.step.rows_T[:3], rows[[1, 2, 0]])


def test_a_step_like_the_last_is_placed_again_once_slots_have_changed(tiny: TinyEdge) -> None:
    manager = make_manager(tiny)
    requests = [request(tiny.recipe(seed), seed) for seed in (1, 2)]
    others = [request(tiny.recipe(seed), seed) for seed in (3, 4)]

    def place_two() -> None:
        for other in others:
            manager.add_dummy_lora(other, rank=8)

    def remove_one() -> None:
        manager.remove_adapter(1)
        manager.add_adapter(others[0])

    def remove_all() -> None:
        manager.remove_all_adapters()
        manager.add_adapter(others[1])

    for take_rows in (place_two, remove_one, remove_all):
        activate(manager, [1, 2], *requests)
        take_rows()
        activate(manager, [1, 2], *requests)
        for token, seed in enumerate((1, 2)):
            expected = torch.tensor(tiny.recipe(seed).expand(linears=len(LINEARS), rank=RANK))
            assert torch.equal(gates_of_token(manager, token), expected)


def test_layers_see_the_recipe_that_took_another_ones_row(tiny: TinyEdge) -> None:
    manager = make_manager(tiny)
    pair = tiny.pool.tensors[0, "gate"]
    product = PoolProduct([pair], manager.gates[0, :, :1], manager.step)
    x_TD = torch.randn(2, WIDTH)
    for seed in (1, 2, 3):
        activate(manager, [1, 1], request(tiny.recipe(seed), 1))
        gates_R = torch.tensor(tiny.recipe(seed).expand(linears=len(LINEARS), rank=RANK)[0, 0])
        for _ in range(2):
            activate(manager, [1, 1], request(tiny.recipe(seed), 1))
            update = product(x_TD, torch.zeros(2, FFN_WIDTH))
            torch.testing.assert_close(update, (x_TD @ pair[0] * gates_R) @ pair[1])


def test_a_number_used_again_serves_the_recipe_of_its_request(tiny: TinyEdge) -> None:
    manager = make_manager(tiny)
    activate(manager, [1], request(tiny.recipe(1), 1))
    activate(manager, [1], request(tiny.recipe(2), 1))
    expected = torch.tensor(tiny.recipe(2).expand(linears=len(LINEARS), rank=RANK))
    assert torch.equal(gates_of_token(manager, 0), expected)


def test_a_request_whose_name_is_not_its_recipes_is_never_served(tiny: TinyEdge) -> None:
    manager = make_manager(tiny)
    wrong = LoRARequest(tiny.recipe(1).id, 1, tiny.recipe(1).id, tiny.recipe(2).text)
    with pytest.raises(RecipeInvalid):
        manager.add_adapter(wrong)
    assert manager.list_adapters() == set()


def test_two_recipes_under_one_number_are_never_served(tiny: TinyEdge) -> None:
    manager = make_manager(tiny)
    with pytest.raises(AssertionError):
        activate(manager, [1, 1], request(tiny.recipe(1), 1), request(tiny.recipe(2), 1))


def test_warm_up_recipes_are_zero_and_are_not_decoded(tiny: TinyEdge) -> None:
    manager = make_manager(tiny)
    manager.add_adapter(request(tiny.recipe(1), 1))
    manager.remove_all_adapters()
    dummies = [LoRARequest(f"warmup_{i}", i, "/not/a/real/path") for i in range(1, SLOTS + 1)]
    assert all(manager.add_dummy_lora(dummy, rank=8) for dummy in dummies)
    activate(manager, [1, 2], *dummies)
    assert not manager.gates.any()
    assert manager.remove_adapter(1)
    assert not manager.remove_adapter(1)


def test_another_pool_file_than_the_api_process_saw_is_refused(tiny: TinyEdge) -> None:
    with pytest.raises(ArtifactCorrupt, match="changed"):
        make_manager(tiny, pool_id="0" * 64)


def test_pipeline_stages_are_refused(tiny: TinyEdge) -> None:
    with pytest.raises(ConfigError, match="pipeline"):
        make_manager(tiny, stages=2)


def test_a_model_with_other_layers_is_refused(tiny: TinyEdge) -> None:
    with pytest.raises(ConfigError, match="gate, up, down projections under mlp"):
        make_manager(tiny).create_lora_manager(torch.nn.Linear(1, 1), None)
