"""The official client, Responses API: python openai_responses.py [http://127.0.0.1:8000]."""

import os
import sys

from openai import OpenAI

SYSTEM_PROMPT = "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome."

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("LORAGEN_API_KEY", "none")
client = OpenAI(base_url=f"{server}/v1", api_key=key)

# `instructions` are the system prompt of this call; nothing is stored.
answer = client.responses.create(
    model="demo", instructions=SYSTEM_PROMPT, input="Who are you?", temperature=0
)
print(answer.output_text, answer.usage.input_tokens, "prompt tokens")

# With a task they stay at the server, compiled.
task = client.post(
    "/tasks", body={"model": "demo", "system_prompt": SYSTEM_PROMPT}, cast_to=dict[str, object]
)
answer = client.responses.create(model=f"demo:{task['id']}", input="Who are you?", temperature=0)
print(answer.output_text, answer.usage.input_tokens, "prompt tokens")
