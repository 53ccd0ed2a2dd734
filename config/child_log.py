"""Child log: the file a child writes to, kept small, and what it said last."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

TAIL_BYTES: Final = 8 << 10
MAX_MESSAGE_CHARS: Final = 400


def begin_log(path: Path) -> None:
    """Start an empty log; the one of the last start stays beside it as `.1`."""
    if path.exists():
        path.replace(path.with_name(path.name + ".1"))
    path.touch(mode=0o600)


def last_message(path: Path) -> str | None:
    """Return the last line of a log that says something; of a JSON line its message."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL_BYTES))
        for line in reversed(file.read().decode(errors="replace").splitlines()):
            if line.strip():
                return _message(line.strip())[:MAX_MESSAGE_CHARS]
    return None


def _message(line: str) -> str:
    try:
        fields: Any = json.loads(line)
        return str(fields["message"])
    except (ValueError, TypeError, KeyError):
        return line
