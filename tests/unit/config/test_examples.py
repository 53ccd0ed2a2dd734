"""What is shown once a stack is ready."""

import json
from pathlib import Path
from typing import Any

import pytest

from config.examples import Examples
from loragen.errors import ConfigError

WORK: dict[str, Any] = {
    "system_prompt": 'Say "hi".\nAlways.',
    "question": "What?",
    "answer": "hi",
    "more": 1,
}


def load(folder: Path, content: object) -> Examples:
    path = folder / "prompts.json"
    path.write_text(json.dumps(content))
    return Examples.load(path)


def test_prompts_answers_and_a_program_that_compiles(tmp_path: Path) -> None:
    other: dict[str, Any] = {**WORK, "question": "Why?"}
    mended: dict[str, Any] = {**WORK, "question": "When?"}
    examples = load(tmp_path, {"works": [WORK] * 3, "refined": mended, "fallback": other})
    lines = list(examples.lines(url="http://127.0.0.1:8000", model="demo"))
    text = "\n".join(lines)
    assert "Three prompts to try:" in text
    assert 'Say "hi". Always.' in text
    assert text.index("  4. ") < text.index("question: When?") < text.index("  5. ")
    assert text.index("  5. ") < text.index("question: Why?")
    start = next(i for i, line in enumerate(lines) if line.endswith("<<'END'"))
    assert lines[-1] == "END"
    compile("\n".join(lines[start + 1 : -1]), "program", "exec")


@pytest.mark.parametrize("content", [[], {"works": [{"question": "x"}]}, {"fallback": WORK}])
def test_other_files_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ConfigError, match="not an examples file"):
        load(tmp_path, content)
