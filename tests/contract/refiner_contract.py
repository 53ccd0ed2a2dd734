"""What every router service must do over HTTP when a task is to be refined."""

import asyncio
from typing import Any

import httpx
import pytest

from loragen.recipe import Level, Recipe
from loragen.wire import CompileReply, HeadList, RefineReply
from tests.contract.generator_contract import EDGE_MODEL, bearer, compile_prompt

PROMPT = "You are kind."
PROBES = [{"input": f"Question {number}?"} for number in range(8)]


async def refine(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = {"edge_model": EDGE_MODEL, "prompt": PROMPT, "probes": PROBES, **fields}
    return await client.post("/refine", json=body, headers=bearer())


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
