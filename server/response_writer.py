"""Chat completions' answers, whole or in chunks, as objects and events of the Responses API.

https://platform.openai.com/docs/api-reference/responses/object and .../responses-streaming
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from server.response_request import ResponsesRequest

_TEXT: Final = {"type": "output_text", "annotations": []}


class ResponseWriter:
    """Writes the answer to one request."""

    def __init__(self, request: ResponsesRequest, model: str) -> None:
        self._request = request
        self._model = model
        self._id = f"resp_{uuid.uuid4().hex}"
        self._created_at = int(time.time())
        self._output: list[dict[str, Any]] = []
        self._call: int | None = None
        """Index in the chat answer of the function call that is being written."""
        self._events = 0
        self._finish_reason: str | None = None
        self._is_done = False
        self._usage: dict[str, Any] | None = None

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the response object of a complete chat answer."""
        choice = answer["choices"][0]
        message = choice["message"]
        calls = [
            {**call, "index": index} for index, call in enumerate(message.get("tool_calls") or [])
        ]
        chunk = {**answer, "choices": [{**choice, "delta": {**message, "tool_calls": calls}}]}
        for _ in self._take(chunk):
            pass  # the events say nothing that the object does not
        for _ in self._close():
            pass
        return self._response()

    async def stream(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the events of a streamed chat answer."""
        yield self._event("response.created", response=self._response())
        yield self._event("response.in_progress", response=self._response())
        async for event in events:
            if event == b"data: [DONE]\n\n":
                for last in self._close():
                    yield last
                response = self._response()
                yield self._event(f"response.{response['status']}", response=response)
            elif event.startswith(b'data: {"error"'):
                error = json.loads(event[6:])["error"]
                # Flat as the reference has it, and in `error` where clients look for failures.
                flat = {key: error[key] for key in ("code", "message", "param")}
                yield self._event("error", **flat, error=error)
            else:
                for each in self._take(json.loads(event[6:])):
                    yield each

    @property
    def _is_cut(self) -> bool:
        return self._finish_reason == "length"

    def _take(self, chunk: dict[str, Any]) -> Iterator[bytes]:
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        for choice in chunk["choices"]:
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            delta = choice["delta"]
            if delta.get("content"):
                yield from self._write_text(delta["content"])
            for call in delta.get("tool_calls") or []:
                yield from self._write_call(call)

    def _write_text(self, text: str) -> Iterator[bytes]:
        if not self._is_open("message"):
            yield from self._close_item()
            yield from self._open_message()
        self._output[-1]["content"][0]["text"] += text
        yield self._item_event("output_text.delta", content_index=0, delta=text, logprobs=[])

    def _write_call(self, call: dict[str, Any]) -> Iterator[bytes]:
        function = call.get("function") or {}
        if not self._is_open("function_call") or self._call != call["index"]:
            yield from self._close_item()
            self._call = call["index"]
            item = {"call_id": call["id"], "name": function["name"], "arguments": ""}
            yield self._open("function_call", "fc", item)
        if arguments := function.get("arguments"):
            self._output[-1]["arguments"] += arguments
            yield self._item_event("function_call_arguments.delta", delta=arguments)

    def _open_message(self) -> Iterator[bytes]:
        yield self._open("message", "msg", {"role": "assistant", "content": []})
        self._output[-1]["content"].append({**_TEXT, "text": ""})
        yield self._item_event("content_part.added", content_index=0, part={**_TEXT, "text": ""})

    def _open(self, kind: str, prefix: str, fields: dict[str, Any]) -> bytes:
        item = {"id": f"{prefix}_{uuid.uuid4().hex}", "type": kind, "status": "in_progress"}
        self._output.append(item | fields)
        return self._item_event("output_item.added", item=self._output[-1])

    def _is_open(self, kind: str) -> bool:
        last = self._output[-1] if self._output else {}
        return (last.get("type"), last.get("status")) == (kind, "in_progress")

    def _close_item(self) -> Iterator[bytes]:
        if self._is_open("message"):
            part = self._output[-1]["content"][0]
            text = part["text"]
            yield self._item_event("output_text.done", content_index=0, text=text, logprobs=[])
            yield self._item_event("content_part.done", content_index=0, part=part)
        elif self._is_open("function_call"):
            item = self._output[-1]
            fields = {"name": item["name"], "arguments": item["arguments"]}
            yield self._item_event("function_call_arguments.done", **fields)
        else:
            return
        self._output[-1]["status"] = "incomplete" if self._is_cut else "completed"
        yield self._item_event("output_item.done", item=self._output[-1])

    def _close(self) -> Iterator[bytes]:
        if not self._output:
            yield from self._open_message()
        yield from self._close_item()
        self._is_done = True

    def _item_event(self, kind: str, **fields: Any) -> bytes:
        place = {"output_index": len(self._output) - 1}
        if "item" not in fields:
            place["item_id"] = self._output[-1]["id"]
        return self._event(f"response.{kind}", **place, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._events, **fields}
        self._events += 1
        text = json.dumps(data, separators=(",", ":"))
        return f"event: {kind}\ndata: {text}\n\n".encode()

    def _response(self) -> dict[str, Any]:
        request = self._request
        asked = request.model_dump(
            by_alias=True,
            exclude_none=True,
            include={"instructions", "max_output_tokens", "temperature", "top_p", "user"},
        )
        ended = "incomplete" if self._is_cut else "completed"
        return {
            **dict.fromkeys(("instructions", "max_output_tokens", "temperature", "top_p")),
            **asked,
            "id": self._id,
            "object": "response",
            "created_at": self._created_at,
            "status": ended if self._is_done else "in_progress",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if self._is_cut else None,
            "metadata": request.metadata or {},
            "model": self._model,
            "output": self._output,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "text": request.text.model_dump(by_alias=True, exclude_none=True),
            "tool_choice": request.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in request.tools],
            "truncation": "disabled",
            "usage": self._usage,
        }


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    details = usage.get("prompt_tokens_details") or {}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": details.get("cached_tokens") or 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
        "loragen": usage["loragen"],
    }
