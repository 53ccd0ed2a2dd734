"""The first key, as an operator makes it beside a running stack."""

import subprocess
import sys
from pathlib import Path

import openai

from config.environment import child_environment
from tests.e2e.stack import MODEL, ROOT, Stack


def loragen(stack: Stack, *arguments: str) -> str:
    """Run a command beside the stack and return what it prints."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "loragen"), *arguments],
        env=child_environment(LORAGEN_CONFIG="", LORAGEN_STATE_DIR=str(stack.state)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_key_made_beside_the_running_stack_is_a_tenant_of_its_own(stack: Stack) -> None:
    key = loragen(stack, "keys", "create", "--tenant", "acme")
    client = openai.OpenAI(base_url=stack.url + "/v1", api_key=key, max_retries=0)
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": MODEL, "system_prompt": "Your name is Ada. Greet people with Ahoy."}
    task = stack.http.post("/v1/tasks", json=body, headers=headers).json()
    assert stack.http.get(f"/v1/tasks/{task['id']}").status_code == 404  # of another tenant
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "who are you?"}],
        extra_body={"task_id": task["id"]},
    )
    assert answer.choices[0].message.content
    shown = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "clients" / "openai_sync.py"), stack.url],
        env=child_environment(LORAGEN_API_KEY=key),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "I am Sam." in shown.stdout
    assert len(stack.http.get("/v1/tasks", headers=headers).json()["data"]) == 2
    loragen(stack, "tenants", "delete", "acme", "--yes")
    assert stack.http.get("/v1/tasks", headers=headers).status_code == 401
    keys = [bytes(name) for name in stack.redis().scan_iter("*")]
    assert not [name for name in keys if b":acme" in name]
