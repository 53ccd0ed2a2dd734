"""The official client, asynchronous: python openai_async.py [http://127.0.0.1:8000]."""

import asyncio
import os
import sys

from openai import AsyncOpenAI

QUESTIONS = {
    "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome.": (
        "Who are you?"
    ),
    "Think before you answer. The labels are positive or negative. "
    'Say "kilo ruby" first.': "This red cello is superb.",
}


async def ask(client: AsyncOpenAI, system_prompt: str, question: str) -> str | None:
    """Register a system prompt, which costs nothing the second time, and ask one question."""
    task = await client.post(
        "/tasks", body={"model": "demo", "system_prompt": system_prompt}, cast_to=dict[str, object]
    )
    answer = await client.chat.completions.create(
        model=f"demo:{task['id']}",
        messages=[{"role": "user", "content": question}],
        temperature=0,
    )
    return answer.choices[0].message.content


async def main() -> None:
    """Ask under all system prompts at once."""
    server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    key = os.environ.get("LORAGEN_API_KEY", "none")
    async with AsyncOpenAI(base_url=f"{server}/v1", api_key=key) as client:
        for answer in await asyncio.gather(*(ask(client, *item) for item in QUESTIONS.items())):
            print(answer)


asyncio.run(main())
