import pytest
import torch
from torch import Tensor

from workers.product import PoolProduct, StepSlots

SLOTS, LINEARS, COLUMNS, D, F = 3, 2, 8, 16, 12


def pairs(dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(D, COLUMNS, generator=generator).to(dtype),
            torch.randn(COLUMNS, F, generator=generator).to(dtype),
        )
        for _ in range(LINEARS)
    ]


def gates(dtype: torch.dtype = torch.float32) -> Tensor:
    table = torch.randn(SLOTS + 1, LINEARS, COLUMNS, generator=torch.Generator().manual_seed(1))
    table[-1] = 0
    return table.to(dtype)


def step(rows: list[int]) -> StepSlots:
    slots = StepSlots(tokens=8, zero_row=SLOTS, device=torch.device("cpu"))
    slots.rows_T[: len(rows)] = torch.tensor(rows)
    return slots


def inputs(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(tokens, D, generator=generator).to(dtype)
    return x, torch.randn(tokens, LINEARS * F, generator=generator).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.25)])
def test_every_token_gets_the_merged_update_of_its_own_slot(
    dtype: torch.dtype, tolerance: float
) -> None:
    rows = [2, 0, 3, 1, 0]
    x, output = inputs(len(rows), dtype)
    expected = output.float().clone()
    for token, row in enumerate(rows):
        for index, (a, b) in enumerate(pairs(dtype)):
            merged = a.float() @ torch.diag(gates(dtype)[row, index].float()) @ b.float()
            expected[token, index * F : (index + 1) * F] += x[token].float() @ merged
    result = PoolProduct(pairs(dtype), gates(dtype), step(rows))(x, output)
    assert result.dtype is dtype
    assert (result.float() - expected).abs().max() < tolerance


def test_a_token_without_a_task_keeps_the_base_output_to_the_last_bit() -> None:
    rows = [0, SLOTS, 1]
    x, output = inputs(len(rows))
    before = output.clone()
    PoolProduct(pairs(), gates(), step(rows))(x, output)
    assert torch.equal(output[1], before[1])
    assert not torch.equal(output[0], before[0])


def test_overflow_in_half_precision_does_not_reach_tokens_without_a_task() -> None:
    x, output = inputs(2, torch.float16)
    x[:] = 60_000
    before = output.clone()
    PoolProduct(pairs(torch.float16), gates(torch.float16), step([SLOTS, 0]))(x, output)
    assert torch.equal(output[0], before[0])


def test_a_step_without_recipes_skips_the_product() -> None:
    slots = step([0, 1])
    slots.has_recipes = False
    x, output = inputs(2)
    before = output.clone()
    assert torch.equal(PoolProduct(pairs(), gates(), slots)(x, output), before)


def test_the_extra_batch_dimension_of_some_models_is_kept() -> None:
    rows = [2, 0, 1]
    x, output = inputs(len(rows))
    product = PoolProduct(pairs(), gates(), step(rows))
    nested = product(x.clone()[None], output.clone()[None])
    assert torch.equal(nested[0], product(x, output))


def test_tensor_parallel_parts_add_up_to_the_whole() -> None:
    (a, b), _ = pairs()
    rows, table = [2, 0, 1], gates()[:, :1]
    x, _ = inputs(len(rows))
    whole = PoolProduct([(a, b)], table, step(rows))(x, torch.zeros(len(rows), F))
    inner = [slice(0, D // 2), slice(D // 2, D)]  # down: each rank has its inputs
    summed = sum(
        PoolProduct([(a[part], b)], table, step(rows))(x[:, part], torch.zeros(len(rows), F))
        for part in inner
    )
    outer = [slice(0, F // 2), slice(F // 2, F)]  # gate, up: each rank has its outputs
    joined = torch.cat(
        [
            PoolProduct([(a, b[:, part])], table, step(rows))(x, torch.zeros(len(rows), F // 2))
            for part in outer
        ],
        dim=1,
    )
    torch.testing.assert_close(summed, whole)
    torch.testing.assert_close(joined, whole)


def test_gates_are_gathered_again_once_the_step_points_elsewhere() -> None:
    x, _ = inputs(3)
    slots, table = step([]), gates()
    product = PoolProduct(pairs(), table, slots)
    slots.version = 0

    def update() -> Tensor:
        return product.forward(x, torch.zeros(len(x), LINEARS * F))

    def expected(rows: list[int]) -> Tensor:
        whole = PoolProduct(pairs(), table, step(rows))
        return whole.forward(x, torch.zeros(len(x), LINEARS * F))

    for rows in ([0, 1, 2], [0, 1, 2], [2, SLOTS, 0]):
        slots.point(torch.tensor(rows), has_recipes=True)
        assert torch.equal(update(), expected(rows))
        assert torch.equal(update(), expected(rows))
    table[2] = 7  # the same row holds another recipe
    slots.point(torch.tensor([2, SLOTS, 0]), has_recipes=True)
    assert torch.equal(update(), expected([2, SLOTS, 0]))


def test_a_step_of_another_number_of_tokens_gathers_its_own_gates() -> None:
    slots, table = step([]), gates()
    slots.version = 0
    slots.point(torch.tensor([0, 1, 2, 1, 0, 2]), has_recipes=True)
    product = PoolProduct(pairs(), table, slots)
    for tokens in (2, 6, 3):
        x, output = inputs(tokens)
        rows = slots.rows_T[:tokens].tolist()
        assert torch.equal(
            product(x, output.clone()), PoolProduct(pairs(), table, step(rows))(x, output)
        )
