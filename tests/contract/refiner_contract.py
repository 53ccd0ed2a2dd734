"""What every router service must do over HTTP when a task is to be refined."""

import asyncio
from typing import Any

import httpx
import pytest

from loragen.recipe import Level, Recipe
from loragen.wire import CompileReply, HeadList, MeasureReply, RefineReply
from tests.contract.generator_contract import EDGE_MODEL, bearer, compile_prompt

PROMPT = "You are kind."
PROBES = [{"input": f"Question {number}?"} for number in range(8)]


async def refine(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = {"edge_model": EDGE_MODEL, "prompt": PROMPT, "probes": PROBES, **fields}
    return await client.post("/refine", json=body, headers=bearer())


async def measure(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    start = CompileReply.model_validate_json((await compile_prompt(client, PROMPT)).content)
    body = {"edge_model": EDGE_MODEL, "prompt": PROMPT, "recipe": start.recipe, **fields}
    return await client.post("/measure", json=body, headers=bearer())


class RefinerContract:
    """Subclasses give `client`: a client of a service that refines for the model `tiny`."""

    async def test_a_recipe_becomes_one_of_the_same_pool_with_both_measured(
        self, client: httpx.AsyncClient
    ) -> None:
        heads = HeadList.model_validate_json(
            (await client.get("/heads", headers=bearer())).content
        ).heads
        start = CompileReply.model_validate_json((await compile_prompt(client, PROMPT)).content)
        response = await refine(client, start=start.recipe)
        assert response.status_code == 200, response.text
        reply = RefineReply.model_validate_json(response.content)
        recipe = Recipe.from_text(reply.recipe)
        assert (recipe.id, recipe.level) == (reply.recipe_id, Level.DENSE)
        assert recipe.pool_id == reply.pool_id == heads[0].pool_id
        assert reply.template_hash == heads[0].template_hash
        assert recipe.id != start.recipe_id
        assert recipe.gates.shape == Recipe.from_text(start.recipe).gates.shape
        assert (reply.probes, reply.held_out) == (8, 4)
        # A gateway of before refuses fields that it does not know.
        assert ("does_harm_before" in response.json()) == reply.does_harm_before
        assert ("does_harm_after" in response.json()) == reply.does_harm_after
        for share in (reply.agreement_before, reply.agreement_after):
            assert 0 <= share <= 1

    async def test_without_a_start_it_begins_with_nothing(self, client: httpx.AsyncClient) -> None:
        probes = [*PROBES[1:], {"input": "Bye?", "output": "Good bye."}]
        response = await refine(client, probes=probes)
        assert response.status_code == 200, response.text

    async def test_a_start_of_another_pool_is_refused(self, client: httpx.AsyncClient) -> None:
        start = CompileReply.model_validate_json((await compile_prompt(client, PROMPT)).content)
        gates = Recipe.from_text(start.recipe).gates
        other = Recipe.encode(gates, pool_id="0f" * 32, level=Level.DENSE)
        response = await refine(client, start=other.text)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (409, "pool_version_mismatch")
        response = await refine(client, start="no-recipe")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "recipe_invalid")

    @pytest.mark.parametrize(
        "probes",
        [
            [],
            PROBES[:7],
            [*PROBES, PROBES[0]],
            [*PROBES, {"input": ""}],
            [*PROBES, {"input": "secret words", "extra": 1}],
            [*PROBES, {"input": "secret words", "output": 5}],
            "secret words",
        ],
    )
    async def test_probes_that_cannot_be_used_are_refused_and_not_quoted(
        self, client: httpx.AsyncClient, probes: Any
    ) -> None:
        response = await refine(client, probes=probes)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "invalid_request")
        assert error["param"].startswith("probes")
        assert "secret words" not in response.text

    async def test_an_edge_model_without_refiner_is_404(self, client: httpx.AsyncClient) -> None:
        response = await refine(client, edge_model="other")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"

    async def test_probes_beyond_the_context_are_refused_and_spare_their_neighbours(
        self, client: httpx.AsyncClient
    ) -> None:
        short, long = await asyncio.gather(refine(client), refine(client, prompt="x" * 1_000))
        assert short.status_code == 200
        error = long.json()["error"]
        assert (long.status_code, error["code"]) == (400, "context_length_exceeded")

    async def test_without_the_secret_nothing_is_refined(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/refine", json={}, headers=bearer("other"))
        assert response.status_code == 401

    @pytest.mark.parametrize("probes", [PROBES, None])
    async def test_a_recipe_is_measured_on_probes_or_on_self_generated_ones(
        self, client: httpx.AsyncClient, probes: Any
    ) -> None:
        response = await measure(client, probes=probes)
        assert response.status_code == 200, response.text
        reply = MeasureReply.model_validate_json(response.content)
        assert 8 <= reply.probes <= 16
        assert (reply.probes == 8) or probes is None
        assert 0 <= reply.agreement <= 1
        assert reply.fidelity is None or 0 <= reply.fidelity <= 1.2
        assert reply.doubt is not None
        assert reply.doubt >= 0

    async def test_without_probes_a_task_is_refined_on_self_generated_ones(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await refine(client, probes=None)
        assert response.status_code == 200, response.text
        reply = RefineReply.model_validate_json(response.content)
        assert 8 <= reply.probes <= 48
        assert reply.held_out == max(4, reply.probes // 4)

    async def test_what_cannot_be_measured_is_refused(self, client: httpx.AsyncClient) -> None:
        gates = Recipe.from_text(
            CompileReply.model_validate_json((await compile_prompt(client, PROMPT)).content).recipe
        ).gates
        other = Recipe.encode(gates, pool_id="0f" * 32, level=Level.DENSE).text
        for fields, refusal in (
            ({"recipe": other}, (409, "pool_version_mismatch")),
            ({"recipe": "no-recipe"}, (400, "recipe_invalid")),
            ({"edge_model": "other"}, (404, "model_not_found")),
            ({"probes": PROBES[:7]}, (400, "invalid_request")),
            ({"prompt": "x" * 1_000, "probes": PROBES}, (400, "context_length_exceeded")),
        ):
            response = await measure(client, **fields)
            assert (response.status_code, response.json()["error"]["code"]) == refusal

    async def test_without_the_secret_nothing_is_measured(self, client: httpx.AsyncClient) -> None:
        response = await client.post("/measure", json={}, headers=bearer("other"))
        assert response.status_code == 401
