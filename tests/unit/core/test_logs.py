"""Every log line is one JSON object with the id of its request."""

import json
import logging
import sys

import pytest

from loragen.logs import JsonFormatter, configure_logs, request_id


def line_of(record: logging.LogRecord) -> dict[str, object]:
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line: dict[str, object] = json.loads(text)
    return line


def record_of(message: str, **extra: object) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord(
        "x", logging.INFO, "file", 1, message, (), None, extra=extra
    )


def test_a_line_holds_message_and_fields() -> None:
    line = line_of(record_of("recipe resolved", tier="redis", seconds=0.5))
    assert (line["message"], line["tier"], line["seconds"]) == ("recipe resolved", "redis", 0.5)
    assert (line["level"], line["logger"]) == ("INFO", "x")
    assert str(line["time"]).endswith("Z")
    assert "request_id" not in line


def test_a_line_has_the_request_it_belongs_to() -> None:
    token = request_id.set("abc")
    try:
        assert line_of(record_of("x"))["request_id"] == "abc"
    finally:
        request_id.reset(token)


def test_what_json_cannot_hold_is_still_logged() -> None:
    line = line_of(record_of("broken \ud800 text\nnext", thing=object(), half="\udfff"))
    assert "object" in str(line["thing"])


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        record = record_of("x")
        record.exc_info = sys.exc_info()
    assert "ValueError: why" in str(line_of(record)["exception"])


def test_requests_of_the_http_client_are_not_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("DEBUG")
    logging.getLogger("httpx").info("GET /secret?key=1")
    logging.getLogger("server").debug("seen")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["seen"]
