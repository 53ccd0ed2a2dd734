"""A real worker, started by its command: what the gateway meets over HTTP, and how it ends."""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from loragen.recipe import Level, Recipe
from loragen.wire import WorkerInfo
from tests.fakes.tiny import EXPERTS, LAYERS, LINEARS, TinyEdge
from tests.integration.worker_process import (
    MESSAGES,
    START_SECONDS,
    STOP_SECONDS,
    Worker,
    start_worker,
)

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def workers(
    tiny: TinyEdge, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Worker, Worker]]:
    """Start both workers at once: most of a start is waiting for the other's imports."""
    folder = tmp_path_factory.mktemp("worker")
    shape = {"max_model_len": 256, "max_num_seqs": 32, "kv_cache_gib": 0.125}
    models = [
        {"name": "tiny", "model": str(tiny.model), "generator": str(tiny.generator), **shape},
        {"name": "plain", "model": str(tiny.model), **shape},
    ]
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"edge_models": models}))
    started = [start_worker(name, config) for name in ("tiny", "plain")]
    try:
        for worker in started:
            worker.wait_ready()
        yield started[0], started[1]
    finally:
        for worker in started:
            worker.end()


@pytest.fixture(scope="module")
def worker(workers: tuple[Worker, Worker]) -> Worker:
    return workers[0]


@pytest.fixture(scope="module")
def plain(workers: tuple[Worker, Worker]) -> Worker:
    return workers[1]


def test_it_says_what_it_serves(worker: Worker, tiny: TinyEdge) -> None:
    info = WorkerInfo.model_validate(worker.http.get("/loragen").json())
    assert info == WorkerInfo(
        edge_model="tiny",
        pool_id=tiny.pool.id,
        template_hash=tiny.pool.spec.template_hash,
        backend="gate",
        max_model_len=256,
    )


def test_header_and_body_bring_the_same_recipe(worker: Worker, tiny: TinyEdge) -> None:
    recipe = tiny.recipe(1)
    by_header = worker.chat(recipe)
    by_body = worker.tokens(extra_body={"loragen_recipe": recipe.text})
    assert by_header.choices[0].token_ids == by_body != worker.tokens()
    assert by_header.model == "tiny"


def test_a_paper_recipe_is_served(worker: Worker, tiny: TinyEdge) -> None:
    assert worker.tokens(tiny.recipe(1, level=Level.PAPER)) != worker.tokens()


def test_zero_gates_answer_as_the_base_model(worker: Worker, tiny: TinyEdge) -> None:
    options: dict[str, Any] = {"logprobs": True, "top_logprobs": 5}
    zero = worker.chat(tiny.recipe(1, scale=0.0), **options).choices[0].logprobs
    assert zero == worker.chat(**options).choices[0].logprobs


def test_the_recipe_of_another_pool_is_refused(worker: Worker, tiny: TinyEdge) -> None:
    other = Recipe.encode(tiny.recipe(1).gates, pool_id="0" * 64, level=Level.DENSE)
    with pytest.raises(openai.ConflictError) as caught:
        worker.chat(other)
    assert caught.value.code == "pool_version_mismatch"


@pytest.mark.parametrize("text", ["garbage", "TEdSQw", "A" * 7_000])
def test_garbage_is_refused(worker: Worker, text: str) -> None:
    fields = {"model": "tiny", "messages": MESSAGES}
    reply = worker.http.post("/v1/chat/completions", json=fields, headers={"x-lora-recipe": text})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "recipe_invalid"


@pytest.mark.parametrize("path", ["/v1/models", "/loragen", "/invocations", "/tokenize"])
def test_without_key_nothing_is_answered(worker: Worker, path: str) -> None:
    assert httpx.get(worker.url + path, headers={"x-lora-recipe": "junk"}).status_code == 401


def test_an_unknown_model_stays_unknown(worker: Worker, tiny: TinyEdge) -> None:
    with pytest.raises(openai.NotFoundError):
        worker.chat(tiny.recipe(1), model="other")
    with pytest.raises(openai.NotFoundError):
        worker.chat(model=tiny.recipe(1).id)


def test_adapters_cannot_be_loaded_at_run_time(worker: Worker) -> None:
    fields = {"lora_name": "a", "lora_path": "/a"}
    assert worker.http.post("/v1/load_lora_adapter", json=fields).status_code == 404


def test_prompt_logprobs_leave_the_engine_alive(worker: Worker, tiny: TinyEdge) -> None:
    """vllm#16668: with stock LoRA these kill a CPU engine."""
    recipe = tiny.recipe(1)
    assert worker.chat(recipe, extra_body={"prompt_logprobs": 2}).prompt_logprobs[1]
    echoed = worker.openai.completions.create(
        model="tiny",
        prompt="hello",
        max_tokens=2,
        echo=True,
        logprobs=2,
        extra_headers={"x-lora-recipe": recipe.text},
    )
    assert echoed.choices[0].text.startswith("hello")
    assert worker.tokens(recipe) == worker.tokens(recipe)


def test_several_answers_at_once(worker: Worker, tiny: TinyEdge) -> None:
    choices = worker.chat(tiny.recipe(1), n=2, temperature=1, seed=1).choices
    assert len(choices) == 2


def test_structured_output(worker: Worker, tiny: TinyEdge) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    answer = worker.chat(
        tiny.recipe(1),
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        extra_body={"ignore_eos": False, "structured_outputs": None},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"a"}


def test_a_stream_says_what_a_whole_answer_says(worker: Worker, tiny: TinyEdge) -> None:
    recipe = tiny.recipe(3)
    whole = worker.chat(recipe).choices[0]
    chunks = [c.choices[0] for c in worker.chat(recipe, stream=True) if c.choices]
    assert "".join(c.delta.content or "" for c in chunks) == whole.message.content
    ids = [token for c in chunks for token in getattr(c, "token_ids", None) or []]
    assert ids == whole.token_ids


def test_a_hundred_tenants_at_once_get_their_own_answers(worker: Worker, tiny: TinyEdge) -> None:
    recipes = [None, *(tiny.recipe(seed) for seed in range(40, 49))]
    alone = [worker.tokens(recipe) for recipe in recipes]
    assert len({tuple(tokens) for tokens in alone}) == len(recipes)
    with ThreadPoolExecutor(25) as pool:
        together = list(pool.map(worker.tokens, recipes * 10))
    assert together == alone * 10


def test_nothing_is_kept_per_recipe(worker: Worker, tiny: TinyEdge) -> None:
    def footprint() -> tuple[int, int]:
        models = worker.http.get("/v1/models")
        return len(worker.http.get("/metrics").text.splitlines()), len(models.content)

    def ask(seed: int) -> None:
        worker.tokens(tiny.recipe(seed), max_tokens=1)

    ask(99)
    footprint()  # its own requests have series, too
    before = footprint()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(100, 200)))
    assert footprint() == before
    assert tiny.recipe(99).text not in worker.log.read_text()


def test_a_large_recipe_comes_in_the_body(worker: Worker, tiny: TinyEdge) -> None:
    wide = Recipe.encode(
        tiny.recipe(1).gates.repeat(999, axis=2), pool_id=tiny.pool.id, level=Level.DENSE
    )
    assert wide.gates.shape == (LAYERS, len(LINEARS), EXPERTS * 999)
    with pytest.raises(openai.BadRequestError, match="the pool mixes"):
        worker.chat(extra_body={"loragen_recipe": wide.text})


def test_a_model_without_generator_is_served_and_refuses_recipes(
    plain: Worker, tiny: TinyEdge
) -> None:
    info = WorkerInfo.model_validate(plain.http.get("/loragen").json())
    assert (info.backend, info.pool_id) == ("none", None)
    assert info.template_hash == tiny.pool.spec.template_hash
    with pytest.raises(openai.BadRequestError, match="no generator"):
        plain.chat(tiny.recipe(1), model="plain")


def test_both_workers_give_the_base_models_answer(worker: Worker, plain: Worker) -> None:
    assert worker.tokens() == plain.tokens(model="plain")


def test_a_signal_ends_every_process(worker: Worker) -> None:
    assert len(worker.processes()) >= 3
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(STOP_SECONDS) == 0
    worker.wait_gone()


def test_a_killed_worker_leaves_no_process(plain: Worker) -> None:
    plain.process.kill()
    plain.process.wait(STOP_SECONDS)
    plain.wait_gone()


def test_a_worker_stopped_while_it_starts_leaves_no_process(plain: Worker, tiny: TinyEdge) -> None:
    worker = start_worker("tiny", plain.log.with_name("config.yaml"))
    try:
        deadline = time.monotonic() + START_SECONDS
        while len(worker.processes()) < 3 and time.monotonic() < deadline:  # the engine's is third
            time.sleep(0.1)
        worker.process.terminate()
        assert worker.process.wait(STOP_SECONDS) == -signal.SIGTERM
        worker.wait_gone()
    finally:
        worker.end()
