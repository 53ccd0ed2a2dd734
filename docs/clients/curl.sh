#!/bin/sh
# curl alone: sh curl.sh [http://127.0.0.1:8000]
set -eu
server=${1:-http://127.0.0.1:8000}

post() {  # usage: post PATH BODY
  curl -sSN --fail-with-body "$server$1" -H "content-type: application/json" \
    -H "authorization: Bearer ${LORAGEN_API_KEY:-none}" -d "$2"
}

# Register a system prompt. The reply holds the task's id; the same prompt always has the same.
task=$(post /v1/tasks '{
  "model": "demo",
  "system_prompt": "You help customers of Nimbus, Tokyo. Your name is Sam. Your greeting is Welcome."
}')
task_id=$(printf %s "$task" | sed 's/.*"id":"\(task_[a-z0-9]*\)".*/\1/')
echo "$task_id"

# Ask; the system prompt is not sent.
post /v1/chat/completions '{
  "model": "demo",
  "task_id": "'"$task_id"'",
  "messages": [{"role": "user", "content": "Who are you?"}],
  "temperature": 0
}'
echo

# The same as a stream.
post /v1/chat/completions '{
  "model": "demo:'"$task_id"'",
  "messages": [{"role": "user", "content": "Who are you?"}],
  "temperature": 0,
  "stream": true
}'
