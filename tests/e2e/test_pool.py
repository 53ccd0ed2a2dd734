"""A model that nobody trained a generator for, from its folder to compiled answers."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.pool import Pool
from loragen.recipe import Recipe
from loragen.suite.small import SMALL
from loragen.suite.splits import Prompt, Split
from loragen.template import CompiledTemplate
from tests.e2e.stack import CHECKPOINT, MODEL, ROOT, Stack, small_model, wait_until

pytestmark = pytest.mark.slow

PROBES, ASKED = 32, 8


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The tests' edge model as any other one: with a pool of its own weights, and no generator."""
    folder = tmp_path_factory.mktemp("pool")
    pool = folder / "pool.safetensors"
    loragen = str(Path(sys.executable).parent / "loragen")
    model = ("--model", str(CHECKPOINT / "edge"), "--out", str(pool))
    subprocess.run((loragen, "bootstrap-pool", *model), cwd=ROOT, check=True, timeout=120)
    edge = {key: value for key, value in small_model().items() if key != "generator"}
    running = Stack(folder, first=edge | {"pool": str(pool)})
    try:
        running.wait_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def draw(family: str) -> Prompt:
    (found,) = (each for each in SMALL.seen if each.name == family)
    return SMALL.draw(found, Split.UNSEEN_PROMPTS, 7)


def questions(prompt: Prompt, count: int) -> list[str]:
    asked = [prompt.ask(Random(number)).question for number in range(600)]
    found = list(dict.fromkeys(asked))[:count]
    assert len(found) == count
    return found


def refined(stack: Stack, task_id: str, probes: list[str]) -> dict[str, Any]:
    """Refine a task to the end and return it."""
    path = f"/v1/tasks/{task_id}"
    body = {"probes": [{"input": question} for question in probes]}
    reply = stack.http.post(f"{path}/refine", json=body)
    assert reply.status_code == 202, reply.text
    wait_until(lambda: stack.http.get(path).json()["refine"] != {"status": "running"}, 120)
    task: dict[str, Any] = stack.http.get(path).json()
    return task


def answer(stack: Stack, task_id: str, question: str, mode: str) -> str:
    reply = stack.ask(question, task_id)
    assert reply.headers["x-loragen-mode"] == mode, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def test_a_task_answers_from_its_prompt_and_once_refined_the_same_without_it(
    pooled: Stack,
) -> None:
    prompt = draw("sentiment")
    asked = questions(prompt, PROBES + ASKED)
    probes, others = asked[:PROBES], asked[PROBES:]
    task = pooled.create(prompt.text)
    assert (task["status"], task["fallback_reason"]) == ("fallback", "no_generator")
    in_context = [answer(pooled, task["id"], question, "prompt") for question in others]
    assert len(set(in_context)) > 1

    after = refined(pooled, task["id"], probes)
    assert after["refine"]["status"] == "done", after["refine"]
    assert (after["status"], after["fallback_reason"], after["measured"]) == ("ready", None, True)
    assert after["fidelity"] >= 0.9
    assert after["refine"]["fidelity_before"] < 0.1
    recipe = [answer(pooled, task["id"], question, "compiled") for question in others]
    assert recipe == in_context
    usage = pooled.ask(others[0], task["id"]).json()["usage"]["loragen"]
    assert usage["recipe_id"] == after["recipe"]["id"]
    assert usage["saved_prompt_tokens"] == task["prompt_tokens"]


def test_the_refined_recipe_outlives_the_gateway_and_is_mixed_as_the_reference_mixes_it(
    pooled: Stack,
) -> None:
    prompt = draw("urgency")
    asked = questions(prompt, PROBES + ASKED)
    probes, others = asked[:PROBES], asked[PROBES:]
    task_id = pooled.create(prompt.text)["id"]
    recipe_id = refined(pooled, task_id, probes)["recipe"]["id"]
    pooled.kill("server")
    wait_until(pooled.is_ready, 60)
    told = [pooled.ask(question, task_id, return_token_ids=True) for question in others]
    assert {reply.headers["x-loragen-recipe"] for reply in told} == {recipe_id}
    recipe = stored_recipe(pooled, task_id)
    assert recipe.id == recipe_id
    assert [tokens(reply) for reply in told] == reference(pooled, recipe, others)


def test_a_router_service_without_generators_is_healthy_and_compiles_nothing(
    pooled: Stack,
) -> None:
    url = f"http://127.0.0.1:{pooled.config['generator']['port']}"
    key = {"authorization": f"Bearer {pooled.secret('generator_secret')}"}
    assert pooled.http.get(f"{url}/health").json() == {"status": "ok"}
    assert pooled.http.get(f"{url}/heads", headers=key).json() == {"heads": []}
    body = {"edge_model": MODEL, "prompt": "Be kind."}
    refused = pooled.http.post(f"{url}/compile", json=body, headers=key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


def stored_recipe(stack: Stack, task_id: str) -> Recipe:
    client = stack.redis()
    (key,) = client.scan_iter(f"*:task:*:{task_id}")
    data = client.hget(key, "refined")
    assert isinstance(data, bytes)
    return Recipe.decode(data)


def tokens(reply: httpx.Response) -> list[int]:
    """Return the tokens of an answer that came to its end, less the end token."""
    (choice,) = reply.json()["choices"]
    assert choice["finish_reason"] == "stop"
    ids: list[int] = choice["token_ids"]
    return ids[:-1]


def reference(stack: Stack, recipe: Recipe, asked: list[str]) -> list[list[int]]:
    """Answer in this process: the Hugging Face model, the pool's file, the recipe's bytes."""
    folder = CHECKPOINT / "edge"
    pool = Pool.load(Path(stack.config["edge_models"][0]["pool"]))
    template = CompiledTemplate.load(folder / "compiled_template.jinja")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chats = [template.render([{"role": "user", "content": question}]) for question in asked]
    ids = [tokenizer(chat, add_special_tokens=False)["input_ids"] for chat in chats]
    gates_BLMR = stack_gates([recipe] * len(ids), pool.id, pool.spec)
    return EdgeModel.load(folder, pool).generate(ids, gates_BLMR, max_tokens=32)
