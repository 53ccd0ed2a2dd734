"""Refine: what `loragen refine` asks the running server, and what it tells of the answer."""

import json
import time
from pathlib import Path
from typing import Any, Final

import httpx

from loragen.errors import ConfigError, LoragenError

POLL_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 60.0


def refine_task(
    url: str, task_id: str, probes: Path | None, *, key: str | None = None
) -> dict[str, Any]:
    """Refine a task of the server at `url` and return its `refine` when it has ended.

    Without probes the server uses the task's own, or messages that the edge model expects.

    Raises:
        ConfigError: the file of probes is not lines of JSON objects.
        LoragenError: the server does not answer, or refuses.
    """
    body = {} if probes is None else {"probes": _read(probes)}
    path = f"/v1/tasks/{task_id}"
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        with httpx.Client(base_url=url, timeout=_ANSWER_SECONDS, headers=headers) as client:
            refine = _task(client.post(f"{path}/refine", json=body))["refine"]
            while refine == {"status": "running"}:
                time.sleep(POLL_SECONDS)
                refine = _task(client.get(path))["refine"]
    except httpx.HTTPError as error:
        raise LoragenError(f"the server at {url} does not answer") from error
    if refine is None:  # nobody is at it any more, and nobody wrote how it ended
        raise LoragenError("the gateway that refined the task has ended; refine it again")
    outcome: dict[str, Any] = refine
    return outcome


def summary(refine: dict[str, Any]) -> str:
    """Return how a refine ended, in one line."""
    reason = f" ({refine['reason']})" if refine["reason"] else ""
    if refine["status"] == "failed":
        return f"failed{reason}: the task is as it was"
    before, after = (refine[f"fidelity_{when}"] for when in ("before", "after"))
    measured = "" if after is None else f": fidelity {before:.2f} before, {after:.2f} after"
    return f"{refine['status']}{reason}{measured}; {refine['seconds']:.1f} s"


def _read(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"--probes: cannot read {path}: {error}") from error


def _task(response: httpx.Response) -> dict[str, Any]:
    try:
        body: dict[str, Any] = response.json()
    except ValueError as error:
        raise LoragenError(f"the server answered {response.status_code}") from error
    if response.is_error:
        raise LoragenError(body["error"]["message"])
    return body
