"""Redis holds recipes, not weights."""

from tests.e2e.stack import Stack

TASKS = 50
OVERHEAD_BYTES = 1_024


def test_a_task_costs_its_recipe_and_at_most_a_kilobyte(stack: Stack) -> None:
    client = stack.redis()
    client.flushall()
    prompts = [f"You are the assistant number {i}. Be kind." for i in range(TASKS)]
    tasks = [stack.create(prompt) for prompt in prompts]
    keys = [key for key in client.scan_iter("*") if b":usage" not in bytes(key)]
    used = sum(int(str(client.memory_usage(key, samples=0))) for key in keys)
    recipes = sum(task["recipe"]["bytes"] for task in tasks)
    assert recipes > 0
    overhead = (used - recipes - sum(map(len, prompts))) / TASKS
    assert overhead <= OVERHEAD_BYTES
