"""LiteLLM: python litellm_completion.py [http://127.0.0.1:8000]."""

import os
import sys

import httpx
import litellm

SYSTEM_PROMPT = "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome."
QUESTION = {"role": "user", "content": "Who are you?"}

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("LORAGEN_API_KEY", "none")
how = {"api_base": f"{server}/v1", "api_key": key, "temperature": 0}

# As with any OpenAI server: the system prompt travels with every request.
answer = litellm.completion(
    model="openai/demo", messages=[{"role": "system", "content": SYSTEM_PROMPT}, QUESTION], **how
)
print(answer.choices[0].message.content, answer.usage.prompt_tokens, "prompt tokens")

# As a task: registered once, compiled, and named in `model` from then on.
task = httpx.post(
    f"{server}/v1/tasks",
    json={"model": "demo", "system_prompt": SYSTEM_PROMPT},
    headers={"authorization": f"Bearer {key}"},
    timeout=60,
).json()
answer = litellm.completion(model=f"openai/demo:{task['id']}", messages=[QUESTION], **how)
print(answer.choices[0].message.content, answer.usage.prompt_tokens, "prompt tokens")
chunks = litellm.completion(
    model="openai/demo", messages=[QUESTION], stream=True, extra_body={"task_id": task["id"]}, **how
)
for chunk in chunks:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
