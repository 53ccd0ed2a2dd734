"""The official client, streaming: python openai_stream.py [http://127.0.0.1:8000]."""

import os
import sys

from openai import OpenAI

SYSTEM_PROMPT = "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome."

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("LORAGEN_API_KEY", "none")
client = OpenAI(base_url=f"{server}/v1", api_key=key)

task = client.post(
    "/tasks", body={"model": "demo", "system_prompt": SYSTEM_PROMPT}, cast_to=dict[str, object]
)
chunks = client.chat.completions.create(
    model="demo",
    messages=[{"role": "user", "content": "Who are you?"}],
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
    extra_body={"task_id": task["id"]},
)
for chunk in chunks:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
    if chunk.usage is not None:
        print("", chunk.usage.loragen, sep="\n")
