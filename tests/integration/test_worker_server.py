"""Real workers, started by their command: with and without a generator, and how they end."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import yaml

from loragen.recipe import Level, Recipe
from loragen.wire import RECIPE_HEADER, WorkerInfo
from tests.differential.engines import BLOCK_BYTES, COMPACT_JSON, MAX_MODEL_LEN
from tests.differential.evidence import Event, Evidence, left_over
from tests.differential.trial import Trial
from tests.fakes.live import wait_until
from tests.fakes.tiny import TinyEdge
from tests.fakes.worker_process import START_SECONDS, STOP_SECONDS, Worker, start_worker

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

STEP_TOKENS = 48
CROWD = 80


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyEdge:
    return TinyEdge.make(Path(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def workers(
    tiny: TinyEdge, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Worker, Worker]]:
    """Start both workers at once: most of a start is waiting for the other's imports."""
    folder = tmp_path_factory.mktemp("worker")
    shape = {
        "max_model_len": MAX_MODEL_LEN,
        "max_num_seqs": 16,
        "max_num_batched_tokens": STEP_TOKENS,
        "kv_cache_gib": 12 * BLOCK_BYTES / 2**30,  # one of the longest requests, and a half
        "drain_timeout_seconds": 60,
        "engine_args": [COMPACT_JSON],
    }
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


def test_a_paper_recipe_is_served(worker: Worker, tiny: TinyEdge) -> None:
    assert worker.client.tokens(tiny.recipe(1, level=Level.PAPER)) != worker.client.tokens()


def test_a_model_without_generator_is_served_and_refuses_recipes(
    plain: Worker, tiny: TinyEdge
) -> None:
    info = WorkerInfo.model_validate(plain.client.http.get("/loragen").json())
    assert (info.backend, info.pool_id) == ("none", None)
    assert info.template_hash == tiny.pool.spec.template_hash
    with pytest.raises(openai.BadRequestError, match="no pool"):
        plain.client.chat(tiny.recipe(1))


def test_both_workers_give_the_base_models_answer(worker: Worker, plain: Worker) -> None:
    assert worker.client.tokens() == plain.client.tokens()


def test_only_the_same_salt_finds_what_was_read_before(worker: Worker, tiny: TinyEdge) -> None:
    def cached(salt: str, recipe: Recipe | None) -> int:
        content = "hello there " * 15  # a token each character; more than one block
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 1,
            "cache_salt": salt,
        }
        headers = {RECIPE_HEADER: recipe.text} if recipe else {}
        reply = worker.client.http.post("/v1/chat/completions", json=body, headers=headers)
        assert reply.status_code == 200, reply.text
        return (reply.json()["usage"]["prompt_tokens_details"] or {}).get("cached_tokens") or 0

    for recipe in (None, tiny.recipe(1)):
        assert cached("acme", recipe) == 0
        assert cached("acme", recipe) > 0
        assert cached("globex", recipe) == 0


def test_one_that_comes_last_and_first_in_precedence_overtakes_those_that_wait(
    worker: Worker,
) -> None:
    """The order is the engine's, over a batch of 16; the gateway chooses the numbers."""
    ended: list[int] = []

    def ask(priority: int) -> None:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 60, "ignore_eos": True}
        reply = worker.client.http.post("/v1/completions", json={**body, "priority": priority})
        assert reply.status_code == 200, reply.text
        ended.append(priority)

    def is_crowded() -> bool:
        return worker.metrics()["vllm:num_requests_waiting"] >= CROWD - 2 * 16

    with ThreadPoolExecutor(CROWD + 1) as threads:
        crowd = [threads.submit(ask, 1) for _ in range(CROWD)]
        wait_until(is_crowded)
        threads.submit(ask, 0).result()
        place = ended.index(0)
        for each in crowd:
            each.result()
    assert place < CROWD - 2 * 16


def test_a_random_mix_of_requests_is_answered_as_with_merged_weights(
    worker: Worker, tiny: TinyEdge
) -> None:
    """The short form of `make fuzz-worker`, in an engine that is short of blocks and of steps."""
    trial = Trial(tiny, seed="short", max_model_len=MAX_MODEL_LEN)
    evidence = Evidence(worker)
    outcome = trial.run(worker.client, requests=150, misled=5, max_num_seqs=16)
    assert outcome.mismatches == []
    assert outcome.found == 5
    events = evidence.events(outcome.cases, step_tokens=STEP_TOKENS)
    expected: set[Event] = {"preemptions", "chunked_prompts", "cached_tokens", "aborts"}
    assert {event for event in expected if not events[event]} == set()
    assert left_over(worker) == []


def test_told_to_end_it_finishes_what_runs_takes_nothing_new_and_leaves_no_process(
    worker: Worker,
) -> None:
    assert len(worker.processes()) >= 3
    stream = worker.client.chat(stream=True, max_tokens=40)
    chunks = [next(stream)]
    os.killpg(worker.process.pid, signal.SIGTERM)  # as a terminal's Ctrl-C does
    while takes_requests(worker):
        time.sleep(0.01)
    chunks.extend(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    ids = [getattr(chunk.choices[0], "token_ids", None) or () for chunk in chunks]
    assert sum(map(len, ids)) == 40
    assert worker.process.wait(STOP_SECONDS) == 0
    worker.wait_gone()


def takes_requests(worker: Worker) -> bool:
    try:
        worker.client.chat(max_tokens=1)
    except openai.APIError:
        return False
    return True


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
