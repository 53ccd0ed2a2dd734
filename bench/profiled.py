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
from types import CodeType, FrameType
from typing import Annotated, Any, Final

import typer

ROOT: Final = Path(__file__).parents[1]
_STEP_SECONDS: Final = 0.002
_MOST: Final = 60


class Samples:
    """How often each function was found at work, each package, and each function on the stack."""

    def __init__(self) -> None:
        self._own: Counter[str] = Counter()
        self._packages: Counter[str] = Counter()
        self._on_stack: Counter[str] = Counter()

    def begin(self) -> None:
        """Sample from now on."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _STEP_SECONDS, _STEP_SECONDS)

    def shares(self) -> dict[str, Any]:
        """Return shares of the CPU time: of packages, of functions and of these with callees."""
        total = max(1, self._own.total())
        return {
            "samples": total,
            "packages": {
                name: round(found / total, 4) for name, found in self._packages.most_common()
            },
            "functions": {
                name: [round(self._own[name] / total, 4), round(found / total, 4)]
                for name, found in self._on_stack.most_common(_MOST)
            },
        }

    def _sample(self, _: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        if stack:
            self._own[_name(stack[0])] += 1
            self._packages[next(filter(None, map(_package, stack)), "event loop")] += 1
            self._on_stack.update({_name(code) for code in stack})


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


def _name(code: CodeType) -> str:
    return f"{'/'.join(Path(code.co_filename).parts[-2:])} {code.co_qualname}"


def _package(code: CodeType) -> str | None:
    """Return whose code it is; None of the standard library's, which works for who calls it."""
    path = Path(code.co_filename)
    _, found, inside = code.co_filename.partition("/site-packages/")
    if found:
        return inside.partition("/")[0]
    if not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "bench"):
        return None
    return path.relative_to(ROOT).parts[0]


if __name__ == "__main__":
    typer.run(main)
