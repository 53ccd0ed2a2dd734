"""What the gateway relies on in a worker. Runs over the fake one here and over the real one too.

A subclass gives the fixture `worker`.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from loragen.errors import PromptTooLong
from loragen.recipe import GateDtype, Level, Recipe
from loragen.wire import MAX_HEADER_CHARS, RECIPE_FIELD, RECIPE_HEADER, WorkerInfo
from server.answer import refusal


@dataclass(frozen=True)
class WorkerUnderTest:
    """Where a worker is, and what can be asked of it."""

    url: str
    key: str
    recipe: Recipe
    """One for its pool."""
    http: httpx.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "http", httpx.Client(base_url=self.url, timeout=60))

    def get(self, path: str) -> httpx.Response:
        """Get a path with the key."""
        return self.http.get(path, headers=self.headers())

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        """Post a body with the key."""
        return self.http.post(path, json=body, headers={**self.headers(), **headers})

    def headers(self) -> dict[str, str]:
        """Return the credentials."""
        return {"authorization": f"Bearer {self.key}"}

    def info(self) -> WorkerInfo:
        """Return what it says it serves."""
        return WorkerInfo.model_validate_json(self.get("/loragen").content)

    def chat(self, text: str = "hello there", **fields: Any) -> dict[str, Any]:
        """Return a deterministic chat request."""
        messages = [{"role": "user", "content": text}]
        model = self.info().edge_model
        return {
            "model": model, "messages": messages, "temperature": 0, "max_tokens": 6, **fields
        }  # fmt: skip


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the error object of a response."""
    error: dict[str, Any] = response.json()["error"]
    assert error["message"]
    return error


class WorkerContract:
    """The checks."""

    backend = "gate"

    def test_health_needs_no_key(self, worker: WorkerUnderTest) -> None:
        assert worker.http.get("/health").status_code == 200

    def test_it_says_what_it_serves(self, worker: WorkerUnderTest) -> None:
        info = worker.info()
        assert info.backend == self.backend
        assert info.pool_id == worker.recipe.pool_id
        assert info.max_model_len > 0

    @pytest.mark.parametrize("key", [None, "Bearer wrong", "Basic x"])
    @pytest.mark.parametrize("path", ["/loragen", "/v1/chat/completions"])
    def test_all_else_needs_the_key(
        self, worker: WorkerUnderTest, path: str, key: str | None
    ) -> None:
        headers = {} if key is None else {"authorization": key}
        method = "GET" if path == "/loragen" else "POST"
        reply = worker.http.request(method, path, json=worker.chat(), headers=headers)
        assert reply.status_code == 401
        assert "error" in reply.json()

    def test_tokenize_counts_what_generation_reads(self, worker: WorkerUnderTest) -> None:
        body = worker.chat()
        counted = worker.post(
            "/tokenize", {"model": body["model"], "messages": body["messages"]}
        ).json()["count"]
        reply = worker.post("/v1/chat/completions", body)
        assert reply.json()["usage"]["prompt_tokens"] == counted

    def test_a_system_message_adds_tokens(self, worker: WorkerUnderTest) -> None:
        model = worker.info().edge_model
        turn = {"role": "user", "content": ""}
        system = {"role": "system", "content": "You are Ada."}
        bare, prompted = (
            worker.post("/tokenize", {"model": model, "messages": messages}).json()["count"]
            for messages in ([turn], [system, turn])
        )
        assert prompted > bare

    def test_an_answer_is_openais(self, worker: WorkerUnderTest) -> None:
        body = worker.chat()
        answer = worker.post("/v1/chat/completions", body).json()
        assert answer["object"] == "chat.completion"
        assert answer["model"] == body["model"]
        assert isinstance(answer["choices"][0]["message"]["content"], str)
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    def test_a_recipe_adds_no_prompt_tokens(self, worker: WorkerUnderTest) -> None:
        body = worker.chat()
        plain = worker.post("/v1/chat/completions", body).json()
        mixed = worker.post(
            "/v1/chat/completions", body, **{RECIPE_HEADER: worker.recipe.text}
        ).json()
        assert mixed["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]
        assert mixed["model"] == body["model"]

    def test_a_recipe_works_alike_from_header_and_body(self, worker: WorkerUnderTest) -> None:
        body = worker.chat()
        header = worker.post(
            "/v1/chat/completions", body, **{RECIPE_HEADER: worker.recipe.text}
        ).json()
        field = worker.post(
            "/v1/chat/completions", {**body, RECIPE_FIELD: worker.recipe.text}
        ).json()
        assert header["choices"] == field["choices"]

    def test_two_recipes_in_one_request_are_refused(self, worker: WorkerUnderTest) -> None:
        body = worker.chat(**{RECIPE_FIELD: worker.recipe.text})
        reply = worker.post("/v1/chat/completions", body, **{RECIPE_HEADER: worker.recipe.text})
        assert reply.status_code == 400
        assert error_of(reply)["code"] == "invalid_request"

    def test_a_recipe_of_another_pool_is_a_409(self, worker: WorkerUnderTest) -> None:
        foreign = Recipe.encode(
            worker.recipe.gates, pool_id="00" * 32, level=Level.DENSE, dtype=GateDtype.INT8
        )
        reply = worker.post("/v1/chat/completions", worker.chat(), **{RECIPE_HEADER: foreign.text})
        assert reply.status_code == 409
        assert error_of(reply)["code"] == "pool_version_mismatch"

    @pytest.mark.parametrize("text", ["", "!!", "Zm9yZ2Vk", "truncated", "padded"])
    def test_what_is_no_recipe_is_a_400(self, worker: WorkerUnderTest, text: str) -> None:
        known = {"truncated": worker.recipe.text[:-4], "padded": worker.recipe.text + "===="}
        reply = worker.post(
            "/v1/chat/completions", worker.chat(), **{RECIPE_HEADER: known.get(text, text)}
        )
        assert reply.status_code == 400
        assert error_of(reply)["code"] == "recipe_invalid"

    def test_a_recipe_of_an_impossible_shape_is_a_400(self, worker: WorkerUnderTest) -> None:
        gates = worker.recipe.gates[:1, :1]
        wrong = Recipe.encode(gates, pool_id=worker.recipe.pool_id, level=Level.DENSE)
        reply = worker.post("/v1/chat/completions", worker.chat(), **{RECIPE_HEADER: wrong.text})
        assert reply.status_code == 400
        assert error_of(reply)["code"] == "recipe_invalid"

    def test_a_large_recipe_travels_in_the_body(self, worker: WorkerUnderTest) -> None:
        text = "A" * (MAX_HEADER_CHARS + 1)
        reply = worker.post("/v1/chat/completions", worker.chat(**{RECIPE_FIELD: text}))
        # It arrives and is read: what it is refused for is its content.
        assert reply.status_code == 400
        assert error_of(reply)["code"] == "recipe_invalid"

    def test_a_stream_ends_with_usage_and_done(self, worker: WorkerUnderTest) -> None:
        body = worker.chat(stream=True, stream_options={"include_usage": True})
        reply = worker.post("/v1/chat/completions", body, **{RECIPE_HEADER: worker.recipe.text})
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = [line[6:] for line in reply.text.split("\n") if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        # The relay of the gateway finds the usage chunk by these characters.
        assert '"usage":{' in events[-2]
        assert json.loads(events[-2])["usage"]["prompt_tokens"] > 0
        assert all('"usage":{' not in event for event in events[:-2])

    def test_completions_take_a_recipe_too(self, worker: WorkerUnderTest) -> None:
        body = {"model": worker.info().edge_model, "prompt": "one two", "max_tokens": 4}
        reply = worker.post("/v1/completions", body, **{RECIPE_HEADER: worker.recipe.text})
        assert reply.status_code == 200
        assert isinstance(reply.json()["choices"][0]["text"], str)

    def test_an_unknown_model_is_a_404(self, worker: WorkerUnderTest) -> None:
        reply = worker.post("/v1/chat/completions", worker.chat(model="nobody"))
        assert reply.status_code == 404

    @pytest.mark.parametrize("excess", [{"max_tokens": 10**6}, {"text": "word " * 2_000}])
    def test_what_exceeds_the_context_is_understood_as_that(
        self, worker: WorkerUnderTest, excess: dict[str, Any]
    ) -> None:
        reply = worker.post("/v1/chat/completions", worker.chat(**excess))
        assert isinstance(refusal(reply), PromptTooLong), reply.text

    def test_a_bad_sampling_value_is_a_400(self, worker: WorkerUnderTest) -> None:
        reply = worker.post("/v1/chat/completions", worker.chat(temperature=-1))
        assert reply.status_code == 400
        assert error_of(reply)
