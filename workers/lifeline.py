"""Lifeline: a process that vLLM starts dies with the one that started it.

vLLM's engine waits on a socket when the API process is gone without a word (SIGKILL, out of
memory, a signal during the start), holding its memory and cores.
"""

import multiprocessing
import os
import signal
import threading
import time
from typing import Final

_POLL_SECONDS: Final = 0.05


def die_with_parent() -> None:
    """Kill this process when the parent that spawned it is gone, or is gone already."""
    threading.Thread(target=_follow_parent, name="lifeline", daemon=True).start()


def _follow_parent() -> None:
    # multiprocessing knows the parent only after it has imported the main module, where we start.
    while (parent := multiprocessing.parent_process()) is None:
        time.sleep(_POLL_SECONDS)
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
