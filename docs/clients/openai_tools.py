"""The official client, tools: python openai_tools.py [http://127.0.0.1:8000]."""

import os
import sys

from openai import OpenAI

SYSTEM_PROMPT = "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome."
CITIES = {"type": "string", "enum": ["Oslo", "Tokyo"]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_shop",
            "description": "Find the shop of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": CITIES},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("LORAGEN_API_KEY", "none")
client = OpenAI(base_url=f"{server}/v1", api_key=key)

# The definitions are part of the task: compiled with its prompt, and not sent with a request.
task = client.post(
    "/tasks",
    body={"model": "demo", "system_prompt": SYSTEM_PROMPT, "tools": TOOLS},
    cast_to=dict[str, object],
)
answer = client.chat.completions.create(
    model="demo",
    messages=[{"role": "user", "content": "Where are you?"}],
    tool_choice="required",
    temperature=0,
    extra_body={"task_id": task["id"]},
)
for call in answer.choices[0].message.tool_calls:
    print(call.function.name, call.function.arguments)
print(answer.usage.loragen["mode"], answer.usage.loragen["saved_prompt_tokens"], "tokens saved")
