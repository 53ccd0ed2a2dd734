"""A client that knows nothing of tasks: it sends its system prompt with every request, as ever."""

import httpx

from tests.e2e.reference import Reference
from tests.e2e.stack import Stack, wait_until

RULE = 'Read every message with care. JSON only. Key: "violet". Value: the item.'
QUESTION = "I am looking for a lamp."


def say(stack: Stack, *turns: str) -> httpx.Response:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]
    system = {"role": "system", "content": RULE}
    reply = stack.ask("", messages=[system, *messages])
    assert reply.status_code == 200, reply.text
    return reply


def text_of(reply: httpx.Response) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def test_a_drop_in_client_stops_paying_for_its_prompt(stack: Stack, reference: Reference) -> None:
    first = say(stack, QUESTION)
    assert first.headers["x-loragen-fallback-reason"] == "first_sighting"
    again = say(stack, QUESTION, text_of(first), "I want a chair.")
    assert again.headers["x-loragen-fallback-reason"] == "compiling"
    task_id = again.headers["x-loragen-task"]
    wait_until(lambda: stack.http.get(f"/v1/tasks/{task_id}").json()["status"] == "ready", 30)

    after = say(stack, QUESTION)
    assert after.headers["x-loragen-mode"] == "compiled"
    assert text_of(after) == text_of(first)  # with the prompt and without it
    usage = after.json()["usage"]
    assert usage["prompt_tokens"] == len(reference.tokens(QUESTION))
    saved = usage["loragen"]["saved_prompt_tokens"]
    assert usage["prompt_tokens"] + saved == first.json()["usage"]["prompt_tokens"]

    running = say(stack, QUESTION, text_of(first), "I want a chair.", text_of(again), "And a rug.")
    assert running.headers["x-loragen-fallback-reason"] == "running_conversation"
