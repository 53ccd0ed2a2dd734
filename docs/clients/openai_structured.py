"""The official client, structured output: python openai_structured.py [http://127.0.0.1:8000]."""

import os
import sys
from typing import Literal

from openai import OpenAI
from pydantic import BaseModel

SYSTEM_PROMPT = "Think before you answer. The labels are positive or negative."


class Review(BaseModel):
    """What the answer must look like."""

    label: Literal["positive", "negative"]


server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("LORAGEN_API_KEY", "none")
client = OpenAI(base_url=f"{server}/v1", api_key=key)

task = client.post(
    "/tasks", body={"model": "demo", "system_prompt": SYSTEM_PROMPT}, cast_to=dict[str, object]
)
answer = client.chat.completions.parse(
    model="demo",
    messages=[{"role": "user", "content": "This red cello is superb."}],
    response_format=Review,
    temperature=0,
    extra_body={"task_id": task["id"]},
)
print(answer.choices[0].message.parsed)
