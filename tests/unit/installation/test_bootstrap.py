"""What a machine lacks is said in one line, before anything is installed."""

import subprocess
from pathlib import Path

from config.environment import child_environment

SCRIPT = Path(__file__).parents[3] / "scripts" / "bootstrap.sh"
OLD_PYTHON = '#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" || exit 1\n'


def refusal(python: str) -> str:
    run = subprocess.run(
        ["sh", str(SCRIPT)],
        env=child_environment(PYTHON=python),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    return line


def test_an_old_python_is_refused_by_name(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(OLD_PYTHON)
    python.chmod(0o755)
    assert "found Python 3.9.2" in refusal(str(python))


def test_a_missing_python_is_refused_by_name() -> None:
    assert "no /nowhere/python3 on PATH" in refusal("/nowhere/python3")
