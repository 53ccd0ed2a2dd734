"""Batched serving is exact: many tasks and none, all at once, against the in-process reference."""

import asyncio
import logging
from dataclasses import dataclass, replace
from hashlib import sha256
from random import Random
from typing import Any

import httpx

from loragen.recipe import Recipe
from loragen.suite.small import SMALL
from loragen.suite.splits import Split
from tests.e2e.reference import Reference
from tests.e2e.stack import MODEL, Stack

TASKS = 60
REQUESTS = 360
MAX_TOKENS = 24
LEAST_IDENTICAL = 0.995

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """One request and what it must be answered with."""

    text: str
    task_id: str | None
    recipe: Recipe | None


async def ask_all(stack: Stack, questions: list[Question]) -> list[list[int]]:
    async with httpx.AsyncClient(base_url=stack.url, timeout=300) as client:
        return await asyncio.gather(*(ask(client, question) for question in questions))


async def ask(client: httpx.AsyncClient, question: Question) -> list[int]:
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question.text}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "return_token_ids": True,
    }
    if question.task_id is not None:
        body["task_id"] = question.task_id
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-loragen-mode"] == ("compiled" if question.task_id else "base")
    choice = reply.json()["choices"][0]
    ids: list[int] = choice["token_ids"]
    return ids[:-1] if choice["finish_reason"] == "stop" else ids


def stored_recipes(stack: Stack) -> dict[str, Recipe]:
    """Return what Redis holds, by recipe id."""
    client = stack.redis()
    stored = [bytes(client.get(key)) for key in client.scan_iter("*:recipe:*")]  # type: ignore[arg-type]
    return {sha256(data).hexdigest(): Recipe.decode(data) for data in stored}


def answers_of(reference: Reference, questions: list[Question]) -> list[list[int]]:
    """Return the reference's answers; equal questions under equal recipes are computed once."""
    recipes = {
        question.recipe.id if question.recipe else "": question.recipe for question in questions
    }
    keys = [
        (question.text, question.recipe.id if question.recipe else "") for question in questions
    ]
    unique = list(dict.fromkeys(keys))
    answers = reference.answer(
        [text for text, _ in unique],
        [recipes[recipe_id] for _, recipe_id in unique],
        max_tokens=MAX_TOKENS,
    )
    known = dict(zip(unique, answers, strict=True))
    return [known[key] for key in keys]


def test_mixed_concurrent_requests_match_the_reference(stack: Stack, reference: Reference) -> None:
    stack.redis().flushall()
    rng = Random(7)
    families = SMALL.seen
    prompts = [
        SMALL.draw(families[i % len(families)], Split.UNSEEN_PROMPTS, 10_000 + i)
        for i in range(TASKS)
    ]
    tasks = [stack.create(prompt.text, min_fidelity=0) for prompt in prompts]
    recipes = stored_recipes(stack)
    questions = []
    for i in range(REQUESTS):
        prompt, task = prompts[i % TASKS], tasks[i % TASKS]
        if i % 7 == 6:
            questions.append(Question(prompt.ask(rng).question, None, None))
        else:
            recipe = recipes[task["recipe"]["id"]]
            questions.append(Question(prompt.ask(rng).question, task["id"], recipe))
    assert len({recipe.id for recipe in recipes.values()}) >= 50
    served = asyncio.run(ask_all(stack, questions))
    expected = answers_of(reference, questions)
    different = [
        f"{question.text!r} task {question.task_id}: served {got}, reference {want}"
        for question, got, want in zip(questions, served, expected, strict=True)
        if got != want
    ]
    logger.info("%d of %d requests are token-identical", REQUESTS - len(different), REQUESTS)
    for line in different:
        logger.warning(line)
    assert 1 - len(different) / REQUESTS >= LEAST_IDENTICAL, "\n".join(different)
    # Recipes must matter, or equality would prove nothing.
    bare = answers_of(reference, [replace(question, recipe=None) for question in questions[:60]])
    assert sum(a != b for a, b in zip(expected, bare, strict=False)) > 30
