"""Keeper: `python -m config.keeper PARENT GRACE COMMAND...` runs a command and all it starts.

The launcher puts one between itself and each service, as containers put an init there. Whatever
the service starts, in whatever session, ends with it: orphans come back to the keeper, which is
their subreaper. SIGTERM ends the service, after GRACE seconds by force; SIGQUIT ends it at once.
When the launcher dies, even by SIGKILL, Linux sends the keeper SIGTERM. Exits as the command did.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

from config.process_tree import descendants

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_SIGNALS: Final = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
ORPHAN_SECONDS: Final = 2.0
"""How long what a service left behind may take to end by itself."""
_POLL_SECONDS: Final = 0.05


class Keeper:
    """One service and its descendants."""

    def __init__(self, command: Sequence[str], *, grace_seconds: float) -> None:
        self._command = list(command)
        self._grace_seconds = grace_seconds
        self._status: int | None = None
        self._service = 0

    def run(self) -> int:
        """Run the service to its end; return its exit code, 128 + n if signal n ended it."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._service = self._start()
        force_at: float | None = None
        while self._status is None:
            wait = 3600.0 if force_at is None else max(0.0, force_at - time.monotonic())
            arrived = signal.sigtimedwait(_SIGNALS, wait)
            if arrived is None and force_at is None:
                continue
            if arrived is None or arrived.si_signo == signal.SIGQUIT:
                self._signal_all(signal.SIGKILL)
            elif arrived.si_signo != signal.SIGCHLD and force_at is None:
                os.kill(self._service, signal.SIGTERM)
                force_at = time.monotonic() + self._grace_seconds
            self._reap()
        self._end_orphans()
        code = os.waitstatus_to_exitcode(self._status)
        return code if code >= 0 else 128 - code

    def _start(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.execvp(self._command[0], self._command)  # noqa: S606 - the launcher's own command
        except OSError as error:
            sys.stderr.write(f"cannot start {self._command[0]}: {error.strerror}\n")
            sys.stderr.flush()
        os._exit(127)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._service:
                self._status = status

    def _end_orphans(self) -> None:
        self._signal_all(signal.SIGTERM)
        force_at = time.monotonic() + ORPHAN_SECONDS
        while descendants(os.getpid()):
            if time.monotonic() > force_at:
                self._signal_all(signal.SIGKILL)
            self._reap()
            arrived = signal.sigtimedwait(_SIGNALS, _POLL_SECONDS)
            if arrived is not None and arrived.si_signo == signal.SIGQUIT:
                force_at = 0.0
        self._reap()  # the last ones: a container's first process may never do it

    def _signal_all(self, signum: signal.Signals) -> None:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                continue


def die_with_parent(parent: int) -> bool:
    """Ask Linux for SIGTERM when the parent dies; return False if it is dead already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refused")


if __name__ == "__main__":
    if not die_with_parent(int(sys.argv[1])):
        sys.exit(1)
    sys.exit(Keeper(sys.argv[3:], grace_seconds=float(sys.argv[2])).run())
