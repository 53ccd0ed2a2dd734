#!/bin/sh
# curl alone: sh curl.sh [http://127.0.0.1:8000]
set -eu
server=${1:-http://127.0.0.1:8000}

# Register a system prompt. The reply holds the task's id; the same prompt always has the same.
task=$(curl -sS --fail-with-body "$server/v1/tasks" -H "content-type: application/json" -d '{
  "model": "demo",
  "system_prompt": "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome."
}')
task_id=$(printf %s "$task" | sed 's/.*"id":"\(task_[a-z0-9]*\)".*/\1/')
echo "$task_id"

# Ask; the system prompt is not sent.
curl -sS --fail-with-body "$server/v1/chat/completions" -H "content-type: application/json" -d '{
  "model": "demo",
  "task_id": "'"$task_id"'",
  "messages": [{"role": "user", "content": "Who are you?"}],
  "temperature": 0
}'
echo

# The same as a stream.
curl -sSN --fail-with-body "$server/v1/chat/completions" -H "content-type: application/json" -d '{
  "model": "demo:'"$task_id"'",
  "messages": [{"role": "user", "content": "Who are you?"}],
  "temperature": 0,
  "stream": true
}'
