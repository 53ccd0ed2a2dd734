"""What every router service must do over HTTP, whatever compiles in it."""

import asyncio

import httpx
import pytest

from loragen.recipe import Recipe
from loragen.wire import CompileReply, HeadList

EDGE_MODEL = "tiny"
SECRET = "generator-secret"
MAX_BODY_BYTES = 4_096


def bearer(secret: str = SECRET) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def compile_prompt(client: httpx.AsyncClient, prompt: str) -> httpx.Response:
    body = {"edge_model": EDGE_MODEL, "prompt": prompt}
    return await client.post("/compile", json=body, headers=bearer())


class GeneratorContract:
    """Subclasses give `client`: a client of a service that compiles for the model `tiny`."""

    async def test_a_prompt_becomes_a_recipe_of_the_announced_pool(
        self, client: httpx.AsyncClient
    ) -> None:
        heads = HeadList.model_validate_json(
            (await client.get("/heads", headers=bearer())).content
        ).heads
        assert [head.edge_model for head in heads] == [EDGE_MODEL]
        response = await compile_prompt(client, "You are kind.")
        assert response.status_code == 200
        reply = CompileReply.model_validate_json(response.content)
        recipe = Recipe.from_text(reply.recipe)
        assert (recipe.id, recipe.pool_id) == (reply.recipe_id, heads[0].pool_id)
        assert reply.pool_id == heads[0].pool_id
        assert reply.generator_id == heads[0].generator_id
        assert reply.template_hash == heads[0].template_hash

    async def test_the_same_prompt_gives_the_same_bytes_in_any_company(
        self, client: httpx.AsyncClient
    ) -> None:
        alone = (await compile_prompt(client, "prompt 3")).json()["recipe"]
        replies = await asyncio.gather(*(compile_prompt(client, f"prompt {i}") for i in range(8)))
        assert replies[3].json()["recipe"] == alone
        assert len({reply.json()["recipe"] for reply in replies}) == 8

    async def test_health_needs_no_secret(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/health")).status_code == 200

    @pytest.mark.parametrize("path", ["/compile", "/heads"])
    @pytest.mark.parametrize(
        "headers", [{}, bearer("other"), bearer("ünsinn"), {"authorization": SECRET}]
    )
    async def test_without_the_secret_nothing_is_told(
        self, client: httpx.AsyncClient, path: str, headers: dict[str, str]
    ) -> None:
        method = "POST" if path == "/compile" else "GET"
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        response = await client.request(method, path, headers=raw)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            (b"no json", None),
            (b"[]", None),
            (b'{"edge_model": "tiny"}', "prompt"),
            (b'{"edge_model": "tiny", "prompt": 5}', "prompt"),
            (b'{"edge_model": "tiny", "prompt": "secret words", "extra": 1}', "extra"),
        ],
    )
    async def test_a_bad_body_is_400_and_names_the_field(
        self, client: httpx.AsyncClient, body: bytes, param: str | None
    ) -> None:
        response = await client.post("/compile", content=body, headers=bearer())
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "invalid_request")
        assert error["param"] == param
        assert "secret words" not in response.text

    async def test_an_unknown_edge_model_is_404(self, client: httpx.AsyncClient) -> None:
        body = {"edge_model": "other", "prompt": "x"}
        response = await client.post("/compile", json=body, headers=bearer())
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"

    async def test_a_prompt_beyond_the_context_is_refused_and_spares_its_neighbours(
        self, client: httpx.AsyncClient
    ) -> None:
        short, long = await asyncio.gather(
            compile_prompt(client, "short"), compile_prompt(client, "x" * 1_000)
        )
        assert short.status_code == 200
        error = long.json()["error"]
        assert (long.status_code, error["code"]) == (400, "context_length_exceeded")

    async def test_a_large_body_is_413(self, client: httpx.AsyncClient) -> None:
        response = await compile_prompt(client, "x" * MAX_BODY_BYTES)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "request_too_large"

    async def test_unknown_paths_and_methods_have_the_openai_shape(
        self, client: httpx.AsyncClient
    ) -> None:
        unknown, wrong = await client.get("/nothing"), await client.get("/compile")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "invalid_request")
