"""Lifeline: a process that vLLM starts dies with the one that started it.

vLLM's engine waits for ever on a socket when the API process is killed without a word (SIGKILL,
out of memory), holding its memory and cores. Linux sends a signal instead if asked to.
"""

import ctypes
import multiprocessing
import os
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; does nothing in a first process."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
