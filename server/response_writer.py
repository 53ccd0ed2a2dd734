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
        self._places: dict[int | None, int] = {}
        """Where in the output what is being written stands: calls by their index in the chat's
        answer, and under None the message."""
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
        if None not in self._places:
            yield from self._open_message()
        place = self._places[None]
        self._output[place]["content"][0]["text"] += text
        yield self._item_event(place, "output_text.delta", content_index=0, delta=text, logprobs=[])

    def _write_call(self, call: dict[str, Any]) -> Iterator[bytes]:
        function, index = call.get("function") or {}, call["index"]
        if index not in self._places:
            if None in self._places:
                yield from self._close_item(None)
            item = {"call_id": call["id"], "name": function["name"], "arguments": ""}
            yield self._open(index, "function_call", "fc", item)
        if arguments := function.get("arguments"):
            place = self._places[index]
            self._output[place]["arguments"] += arguments
            yield self._item_event(place, "function_call_arguments.delta", delta=arguments)

    def _open_message(self) -> Iterator[bytes]:
        yield self._open(None, "message", "msg", {"role": "assistant", "content": []})
        place = self._places[None]
        self._output[place]["content"].append({**_TEXT, "text": ""})
        part = {**_TEXT, "text": ""}
        yield self._item_event(place, "content_part.added", content_index=0, part=part)

    def _open(self, index: int | None, kind: str, prefix: str, fields: dict[str, Any]) -> bytes:
        item = {"id": f"{prefix}_{uuid.uuid4().hex}", "type": kind, "status": "in_progress"}
        place = self._places[index] = len(self._output)
        self._output.append(item | fields)
        return self._item_event(place, "output_item.added", item=self._output[place])

    def _close_item(self, index: int | None) -> Iterator[bytes]:
        place = self._places.pop(index)
        item = self._output[place]
        if index is None:
            part = item["content"][0]
            fields = {"content_index": 0, "text": part["text"], "logprobs": []}
            yield self._item_event(place, "output_text.done", **fields)
            yield self._item_event(place, "content_part.done", content_index=0, part=part)
        else:
            fields = {"name": item["name"], "arguments": item["arguments"]}
            yield self._item_event(place, "function_call_arguments.done", **fields)
        is_last = place == len(self._output) - 1
        item["status"] = "incomplete" if self._is_cut and is_last else "completed"
        yield self._item_event(place, "output_item.done", item=item)

    def _close(self) -> Iterator[bytes]:
        if not self._output:
            yield from self._open_message()
        for index in list(self._places):  # calls too: pieces of several may come by turns
            yield from self._close_item(index)
        self._is_done = True

    def _item_event(self, place: int, kind: str, **fields: Any) -> bytes:
        named = {} if "item" in fields else {"item_id": self._output[place]["id"]}
        return self._event(f"response.{kind}", output_index=place, **named, **fields)

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
