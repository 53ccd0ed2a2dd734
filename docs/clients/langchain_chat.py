"""LangChain's ChatOpenAI: python langchain_chat.py [http://127.0.0.1:8000]."""

import os
import sys

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

SYSTEM_PROMPT = "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome."

server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
key = os.environ.get("LORAGEN_API_KEY", "none")
model = ChatOpenAI(base_url=f"{server}/v1", api_key=key, model="demo", temperature=0)

# As with any OpenAI server: the system prompt travels with every request.
prompt = ChatPromptTemplate([("system", SYSTEM_PROMPT), ("user", "{question}")])
answer = (prompt | model).invoke({"question": "Who are you?"})
print(answer.content, answer.usage_metadata["input_tokens"], "prompt tokens")

# As a task: registered once, compiled, and named from then on.
task = model.root_client.post(
    "/tasks", body={"model": "demo", "system_prompt": SYSTEM_PROMPT}, cast_to=dict[str, object]
)
of_task = model.model_copy(update={"extra_body": {"task_id": task["id"]}})
answer = of_task.invoke("Who are you?")
print(answer.content, answer.usage_metadata["input_tokens"], "prompt tokens")
for chunk in of_task.stream("Who are you?"):
    print(chunk.content, end="", flush=True)
print()
