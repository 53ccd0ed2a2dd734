"""Logging of every process: one JSON object per line, with the request id of the running request.

Prompts, keys and recipes are never logged: call sites log ids, sizes and durations only.
"""

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import Any, Final

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes a record's message and its `extra` fields as one JSON line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        # A leading underscore marks what libraries attach to records for themselves, as Ray does.
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and k[0] != "_"}
        line.update(extra)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logs(level: str) -> None:
    """Send all logs of this process to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # httpx logs one line per request at INFO, with query strings.
    logging.getLogger("httpx").setLevel(logging.WARNING)
