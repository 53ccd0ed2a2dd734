"""`python -m bench.profiled --out FILE MODULE`: run a module and sample where its CPU time goes.

From SIGUSR1 on, so that neither imports nor the start are in it. A timer that counts the process's
own CPU time looks at the stack every few milliseconds; unlike a profiler that looks at every call
it makes no function dearer than another. What a function in C takes is its caller's.
"""

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer

_STEP_SECONDS: Final = 0.002


class Samples:
    """How often each function was found at work, and how often on the stack."""

    def __init__(self) -> None:
        self._own: Counter[str] = Counter()
        self._on_stack: Counter[str] = Counter()

    def begin(self) -> None:
        """Sample from now on."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _STEP_SECONDS, _STEP_SECONDS)

    def shares(self) -> list[dict[str, Any]]:
        """Return the share of the CPU time of each function, its own and with all it calls."""
        total = max(1, self._own.total())
        return [
            {
                "function": name,
                "own": round(self._own[name] / total, 4),
                "with_callees": round(found / total, 4),
            }
            for name, found in self._on_stack.most_common()
        ]

    def _sample(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self._own[_name(frame)] += 1
        on_stack = set()
        above: FrameType | None = frame
        while above is not None:
            on_stack.add(_name(above))
            above = above.f_back
        self._on_stack.update(on_stack)


def main(
    module: Annotated[str, typer.Argument(help="What to run, as with python -m.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="Of the module.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the JSON.")] = Path("profile.json"),
) -> None:
    """Run a module as `python -m` does."""
    samples = Samples()
    signal.signal(signal.SIGUSR1, lambda *_: samples.begin())
    sys.argv[1:] = arguments or []
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write_text(json.dumps(samples.shares()))


def _name(frame: FrameType) -> str:
    code = frame.f_code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])} {code.co_qualname}"


if __name__ == "__main__":
    typer.run(main)
