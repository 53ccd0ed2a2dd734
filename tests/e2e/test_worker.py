"""The worker of the stack as the gateway meets it: recipes by header and body, keys, refusals."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from loragen.method.pool import Pool
from loragen.recipe import Level, Recipe
from loragen.wire import MAX_HEADER_CHARS, WorkerInfo
from tests.e2e.stack import CHECKPOINT, MODEL, Stack
from tests.fakes.worker_process import MESSAGES, WorkerClient


@pytest.fixture(scope="module")
def worker(stack: Stack) -> WorkerClient:
    return WorkerClient(stack.worker_url, MODEL, stack.worker_secret)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool.load(CHECKPOINT / "generator" / "pool.safetensors")


def recipe_of(pool: Pool, seed: int, *, scale: float = 3.0) -> Recipe:
    """Return a random recipe; scale 0 gives zero gates."""
    shape = (pool.spec.layers, len(pool.spec.linears), pool.spec.experts)
    gates = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return Recipe.encode(gates * np.float32(scale), pool_id=pool.id, level=Level.DENSE)


def test_it_says_what_it_serves(worker: WorkerClient, pool: Pool) -> None:
    info = WorkerInfo.model_validate(worker.http.get("/loragen").json())
    assert info == WorkerInfo(
        edge_model=MODEL,
        pool_id=pool.id,
        template_hash=pool.spec.template_hash,
        backend="gate",
        max_model_len=1024,
    )


def test_header_and_body_bring_the_same_recipe(worker: WorkerClient, pool: Pool) -> None:
    recipe = recipe_of(pool, 1)
    by_header = worker.chat(recipe)
    by_body = worker.tokens(extra_body={"loragen_recipe": recipe.text})
    assert by_header.choices[0].token_ids == by_body != worker.tokens()
    assert by_header.model == MODEL


def test_zero_gates_answer_as_the_base_model(worker: WorkerClient, pool: Pool) -> None:
    options: dict[str, Any] = {"logprobs": True, "top_logprobs": 5}
    zero = worker.chat(recipe_of(pool, 1, scale=0.0), **options).choices[0].logprobs
    assert zero == worker.chat(**options).choices[0].logprobs


def test_the_recipe_of_another_pool_is_refused(worker: WorkerClient, pool: Pool) -> None:
    other = Recipe.encode(recipe_of(pool, 1).gates, pool_id="0" * 64, level=Level.DENSE)
    with pytest.raises(openai.ConflictError) as caught:
        worker.chat(other)
    assert caught.value.code == "pool_version_mismatch"


@pytest.mark.parametrize("text", ["garbage", "TEdSQw", "A" * 7_000])
def test_garbage_is_refused(worker: WorkerClient, text: str) -> None:
    fields = {"model": MODEL, "messages": MESSAGES}
    reply = worker.http.post("/v1/chat/completions", json=fields, headers={"x-lora-recipe": text})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "recipe_invalid"


@pytest.mark.parametrize("path", ["/v1/models", "/loragen", "/invocations", "/tokenize"])
def test_without_key_nothing_is_answered(worker: WorkerClient, path: str) -> None:
    assert httpx.get(worker.url + path, headers={"x-lora-recipe": "junk"}).status_code == 401


def test_an_unknown_model_stays_unknown(worker: WorkerClient, pool: Pool) -> None:
    with pytest.raises(openai.NotFoundError):
        worker.chat(recipe_of(pool, 1), model="other")
    with pytest.raises(openai.NotFoundError):
        worker.chat(model=recipe_of(pool, 1).id)


def test_adapters_cannot_be_loaded_at_run_time(worker: WorkerClient) -> None:
    fields = {"lora_name": "a", "lora_path": "/a"}
    assert worker.http.post("/v1/load_lora_adapter", json=fields).status_code == 404


def test_prompt_logprobs_leave_the_engine_alive(worker: WorkerClient, pool: Pool) -> None:
    """vllm#16668: with stock LoRA these kill a CPU engine."""
    recipe = recipe_of(pool, 1)
    assert worker.chat(recipe, extra_body={"prompt_logprobs": 2}).prompt_logprobs[1]
    echoed = worker.openai.completions.create(
        model=MODEL,
        prompt="hello",
        max_tokens=2,
        echo=True,
        logprobs=2,
        extra_headers={"x-lora-recipe": recipe.text},
    )
    assert echoed.choices[0].text.startswith("hello")
    assert worker.tokens(recipe) == worker.tokens(recipe)


def test_several_answers_at_once(worker: WorkerClient, pool: Pool) -> None:
    choices = worker.chat(recipe_of(pool, 1), n=2, temperature=1, seed=1).choices
    assert len(choices) == 2


def test_structured_output(worker: WorkerClient, pool: Pool) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    answer = worker.chat(
        recipe_of(pool, 1),
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        extra_body={"ignore_eos": False, "structured_outputs": None},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"a"}


def test_a_stream_says_what_a_whole_answer_says(worker: WorkerClient, pool: Pool) -> None:
    recipe = recipe_of(pool, 3)
    whole = worker.chat(recipe).choices[0]
    chunks = [c.choices[0] for c in worker.chat(recipe, stream=True) if c.choices]
    assert "".join(c.delta.content or "" for c in chunks) == whole.message.content
    ids = [token for c in chunks for token in getattr(c, "token_ids", None) or []]
    assert ids == whole.token_ids


def test_a_hundred_tenants_at_once_get_their_own_answers(worker: WorkerClient, pool: Pool) -> None:
    recipes = [None, *(recipe_of(pool, seed) for seed in range(40, 49))]
    alone = [worker.tokens(recipe) for recipe in recipes]
    assert len({tuple(tokens) for tokens in alone}) == len(recipes)
    with ThreadPoolExecutor(25) as threads:
        together = list(threads.map(worker.tokens, recipes * 10))
    assert together == alone * 10


def test_nothing_is_kept_per_recipe(stack: Stack, worker: WorkerClient, pool: Pool) -> None:
    def footprint() -> tuple[int, int]:
        models = worker.http.get("/v1/models")
        return len(worker.http.get("/metrics").text.splitlines()), len(models.content)

    def ask(seed: int) -> None:
        worker.tokens(recipe_of(pool, seed), max_tokens=1)

    ask(99)
    footprint()  # its own requests have series, too
    before = footprint()
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(100, 200)))
    assert footprint() == before
    log = stack.state / "logs" / f"worker-{MODEL}.log"
    assert recipe_of(pool, 99).text not in log.read_text(errors="replace")


def test_a_large_recipe_comes_in_the_body(worker: WorkerClient, pool: Pool) -> None:
    wide = Recipe.encode(
        recipe_of(pool, 1).gates.repeat(999, axis=2), pool_id=pool.id, level=Level.DENSE
    )
    assert len(wide.text) > MAX_HEADER_CHARS
    with pytest.raises(openai.BadRequestError, match="the pool mixes"):
        worker.chat(extra_body={"loragen_recipe": wide.text})
