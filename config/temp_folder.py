"""Temp folder: a private folder for scratch files and sockets, with a path short enough."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SOCKET_PATH_CHARS: Final = 107
"""Linux takes no longer path for a Unix socket."""

RAY_CHARS: Final = 68
"""What Ray puts behind its folder: /session_<time>_<pid>/sockets/plasma_store."""

RANDOM_CHARS: Final = 8
SHORT_PARENT: Final = "/tmp"  # noqa: S108 - the folder made in it is private and unpredictable


@contextmanager
def temp_folder(prefix: str, *, behind: int) -> Iterator[Path]:
    """Make a private folder that leaves room for `behind` characters; afterwards it is gone."""
    parent = tempfile.gettempdir()
    if len(parent) + 1 + len(prefix) + RANDOM_CHARS + behind > SOCKET_PATH_CHARS:
        parent = SHORT_PARENT
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
