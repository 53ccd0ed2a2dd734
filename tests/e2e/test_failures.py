"""Things are killed; nothing is lost and everything comes back by itself."""

import pytest

from tests.e2e.stack import MODEL, Stack, wait_until

Example = dict[str, str]


@pytest.fixture(scope="module")
def example(examples: list[Example]) -> Example:
    return examples[0]


def answers(stack: Stack, example: Example, task_id: str) -> str | None:
    """Return how the example is answered right, or None if it is not."""
    reply = stack.ask(example["question"], task_id)
    if reply.status_code != 200:
        return None
    right = reply.json()["choices"][0]["message"]["content"] == example["answer"]
    return str(reply.headers["x-loragen-mode"]) if right else None


def test_flushed_recipes_are_compiled_again(stack: Stack, example: Example) -> None:
    task_id = stack.create(example["system_prompt"])["id"]
    client = stack.redis()
    for key in client.scan_iter("*:recipe:*"):
        client.delete(key)
    stack.forget_memory()
    assert answers(stack, example, task_id) == "compiled"
    assert len(list(client.scan_iter("*:recipe:*"))) >= 1  # others are measured meanwhile


def test_without_the_generator_tasks_serve_and_new_prompts_fall_back(
    stack: Stack, examples: list[Example]
) -> None:
    old, new = examples[0], examples[1]
    task_id = stack.create(old["system_prompt"])["id"]
    stack.http.delete(f"/v1/tasks/{stack.create(new['system_prompt'])['id']}")
    stack.kill("router_service")
    assert answers(stack, old, task_id) == "compiled"
    fallen = stack.create(new["system_prompt"])
    assert (fallen["status"], fallen["fallback_reason"]) == ("fallback", "generator_unavailable")
    reply = stack.ask(new["question"], fallen["id"])
    assert reply.headers["x-loragen-mode"] == "prompt"
    assert reply.headers["x-loragen-fallback-reason"] == "generator_unavailable"
    assert reply.json()["choices"][0]["message"]["content"] == new["answer"]
    wait_until(lambda: answers(stack, new, fallen["id"]) == "compiled", 120)


def test_without_a_worker_requests_get_503_until_it_is_back(stack: Stack, example: Example) -> None:
    task_id = stack.create(example["system_prompt"])["id"]
    stack.kill(f"worker {MODEL}")
    reply = stack.ask(example["question"], task_id)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "worker_unavailable"
    assert int(reply.headers["retry-after"]) >= 1
    assert not stack.is_ready()
    wait_until(lambda: answers(stack, example, task_id) == "compiled", 240)
    assert stack.is_ready()


def test_server_and_redis_restart_without_losing_a_task(stack: Stack, example: Example) -> None:
    ids = {stack.create(f"You are helper number {i}.")["id"] for i in range(20)}
    task_id = stack.create(example["system_prompt"])["id"]
    # appendfsync everysec: what was written a second ago is on disk.
    wait_until(lambda: stack.redis().info("persistence")["aof_pending_bio_fsync"] == 0, 10)
    stack.kill("redis")
    stack.kill("server")
    wait_until(stack.is_ready, 60)
    for known in ids:
        assert stack.http.get(f"/v1/tasks/{known}").status_code == 200
    assert answers(stack, example, task_id) == "compiled"


def test_flushing_everything_forgets_tasks(stack: Stack, example: Example) -> None:
    task_id = stack.create(example["system_prompt"])["id"]
    stack.redis().flushall()
    stack.forget_memory()
    reply = stack.ask(example["question"], task_id)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "task_not_found")
