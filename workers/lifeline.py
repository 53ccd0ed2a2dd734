"""Lifeline: a process that vLLM starts dies with the one that started it.

vLLM's engine waits on a socket when the API process is gone without a word (SIGKILL, out of
memory, a signal during the start), holding its memory and cores. Linux sends a signal if asked.
"""

import ctypes
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
