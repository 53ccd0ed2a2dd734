// Plain JavaScript: node fetch.mjs [http://127.0.0.1:8000]
const server = process.argv[2] ?? "http://127.0.0.1:8000";
const key = process.env.LORAGEN_API_KEY ?? "none";

async function post(path, body) {
  const reply = await fetch(server + path, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    body: JSON.stringify(body),
  });
  if (!reply.ok) throw new Error((await reply.json()).error.message);
  return reply;
}

// Register a system prompt, then ask without sending it.
const task = await (
  await post("/v1/tasks", {
    model: "demo",
    system_prompt:
      "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome.",
  })
).json();
const request = {
  model: "demo",
  task_id: task.id,
  messages: [{ role: "user", content: "Who are you?" }],
  temperature: 0,
};
const answer = await (await post("/v1/chat/completions", request)).json();
console.log(answer.choices[0].message.content);
console.log(answer.usage.loragen.mode);

// The same as a stream: server-sent events, one JSON object each.
const stream = await post("/v1/chat/completions", { ...request, stream: true });
let rest = "";
let text = "";
for await (const bytes of stream.body.pipeThrough(new TextDecoderStream())) {
  const events = (rest + bytes).split("\n\n");
  rest = events.pop();
  for (const event of events) {
    if (!event.startsWith("data: ") || event === "data: [DONE]") continue;
    const chunk = JSON.parse(event.slice(6));
    if (chunk.error) throw new Error(chunk.error.message);
    text += chunk.choices[0]?.delta.content ?? "";
  }
}
console.log(text);
