import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys

from loragen.errors import RecipeInvalid, RecipeMismatch
from loragen.recipe import Level, Recipe
from tests.fakes.tiny import TinyEdge
from workers.ids import RecipeIds
from workers.intake import NoIntake, RecipeIntake, RecipeView


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def intake(tiny: TinyEdge) -> RecipeIntake:
    view = RecipeView(frozenset({"edge"}))
    return RecipeIntake(tiny.pool.id, tiny.pool.spec, RecipeIds(), view)


def test_name_and_path_are_the_digest_and_the_bytes_travel_beside(
    intake: RecipeIntake, tiny: TinyEdge
) -> None:
    recipe = tiny.recipe(1)
    with intake.admit(recipe.text) as request:
        assert request.lora_name == request.lora_path == recipe.id
        assert Recipe.from_text(request.base_model_name) == recipe


def test_the_kv_cache_is_keyed_by_the_digest_and_not_by_the_bytes(
    intake: RecipeIntake, tiny: TinyEdge
) -> None:
    recipe = tiny.recipe(1)
    with intake.admit(recipe.text) as lora_request:
        request = SimpleNamespace(
            lora_request=lora_request, mm_features=[], cache_salt=None, prompt_embeds=None
        )
        keys, _ = generate_block_hash_extra_keys(request, 0, 16, 0)
    assert recipe.id in repr(keys)
    assert recipe.text not in repr(keys)


def test_the_view_answers_only_for_served_models_and_only_inside_a_request(
    intake: RecipeIntake, tiny: TinyEdge
) -> None:
    view = intake.view
    assert "edge" not in view
    with intake.admit(tiny.recipe(1).text) as request:
        assert view["edge"] is view.get("edge") is view.get(None) is request
        assert "unknown" not in view
        assert view.get("unknown") is None
        with pytest.raises(KeyError):
            view["unknown"]
        assert list(view) == list(view.values()) == []
    assert view.get("edge") is None


async def test_requests_that_run_together_see_their_own_recipe(
    intake: RecipeIntake, tiny: TinyEdge
) -> None:
    async def name_of(seed: int) -> str:
        with intake.admit(tiny.recipe(seed).text):
            await asyncio.sleep(0)
            name: str = intake.view["edge"].lora_name
            return name

    names = await asyncio.gather(*map(name_of, range(8)))
    assert names == [tiny.recipe(seed).id for seed in range(8)]


def test_a_paper_recipe_is_admitted(intake: RecipeIntake, tiny: TinyEdge) -> None:
    with intake.admit(tiny.recipe(1, level=Level.PAPER).text):
        pass


def test_garbage_and_other_pools_are_refused_and_hold_no_number(
    intake: RecipeIntake, tiny: TinyEdge
) -> None:
    other = Recipe.encode(tiny.recipe(1).gates, pool_id="0" * 64, level=Level.DENSE)
    wrong_shape = Recipe.encode(tiny.recipe(1).gates[:1], pool_id=tiny.pool.id, level=Level.DENSE)
    for text, error in (
        ("!", RecipeInvalid),
        (other.text, RecipeMismatch),
        (wrong_shape.text, RecipeInvalid),
    ):
        with pytest.raises(error), intake.admit(text):
            pass
    with intake.admit(tiny.recipe(1).text) as request:
        assert request.lora_int_id == 1


def test_a_worker_without_pool_refuses_recipes(tiny: TinyEdge) -> None:
    with pytest.raises(RecipeInvalid), NoIntake().admit(tiny.recipe(1).text):
        pass
