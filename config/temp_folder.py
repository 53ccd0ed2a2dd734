"""Temp folder: a private folder for sockets and scratch files, short enough for both."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MAX_PARENT_CHARS: Final = 24
"""A Unix socket's path has at most 107 characters, and Ray puts some 70 of its own behind ours."""

SHORT_PARENT: Final = "/tmp"  # noqa: S108 - the folder made in it is private and unpredictable


@contextmanager
def temp_folder(prefix: str) -> Iterator[Path]:
    """Make a private folder with a short path; it is gone with all it holds afterwards."""
    parent = tempfile.gettempdir()
    if len(parent) > MAX_PARENT_CHARS:
        parent = SHORT_PARENT
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
