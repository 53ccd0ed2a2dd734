"""Process tree: who descends from whom, read from Linux' /proc."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    started: int


def children(pid: int) -> list[int]:
    """Return the living children of a process, oldest first."""
    return [process.pid for process in _processes() if process.parent == pid]


def descendants(pid: int) -> list[int]:
    """Return everything alive below a process, oldest first."""
    below = {pid}
    processes = _processes()
    grew = True
    while grew:  # a child may be listed before its parent: pids wrap around
        more = {each.pid for each in processes if each.parent in below} - below
        below |= more
        grew = bool(more)
    return [each.pid for each in processes if each.pid in below and each.pid != pid]


def _processes() -> list[_Process]:
    found = [_read(entry) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return sorted((each for each in found if each is not None), key=lambda each: each.started)


def _read(entry: Path) -> _Process | None:
    try:
        text = (entry / "stat").read_text(errors="replace")
    except OSError:  # it has just ended
        return None
    # The name stands in parentheses and may hold any character, a parenthesis too.
    state, parent, *rest = text.rpartition(")")[2].split()
    if state == "Z":
        return None
    return _Process(int(entry.name), int(parent), int(rest[17]))
