"""The official client: python openai_sync.py [http://127.0.0.1:8000]."""

import os
import sys

from openai import OpenAI

SYSTEM_PROMPT = "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome."
QUESTION = {"role": "user", "content": "Who are you?"}

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("LORAGEN_API_KEY", "none")
client = OpenAI(base_url=f"{server}/v1", api_key=key)

# As with any OpenAI server: the system prompt travels with every request.
answer = client.chat.completions.create(
    model="demo", messages=[{"role": "system", "content": SYSTEM_PROMPT}, QUESTION], temperature=0
)
print(answer.choices[0].message.content, answer.usage.prompt_tokens, "prompt tokens")

# As a task: registered once, compiled, and named from then on.
task = client.post(
    "/tasks", body={"model": "demo", "system_prompt": SYSTEM_PROMPT}, cast_to=dict[str, object]
)
answer = client.chat.completions.create(
    model="demo", messages=[QUESTION], temperature=0, extra_body={"task_id": task["id"]}
)
print(answer.choices[0].message.content, answer.usage.prompt_tokens, "prompt tokens")
print(answer.usage.loragen)
