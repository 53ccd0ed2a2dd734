"""`python -m tests.fuzz.coverage TARGET CORPUS [libFuzzer's options]`: atheris on one target.

Apart from what starts it, because libFuzzer ends its process, and because the code must be
instrumented while it is imported.
"""

import logging
import sys
from pathlib import Path

import atheris

OURS = ["loragen", "server", "workers", "tests.fuzz.growth"]


def main(name: str, corpus: Path, options: list[str]) -> None:
    """Feed a target until libFuzzer has enough, or it fails."""
    with atheris.instrument_imports(include=OURS):
        from tests.fuzz.targets import SEEDS, TARGETS
    logging.disable(logging.CRITICAL)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], str(corpus), *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
