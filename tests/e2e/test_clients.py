"""Every client example of docs/clients runs as it is and prints what it must."""

import re
import runpy
import shutil
import subprocess
import sys

import pytest

from config.environment import child_environment
from tests.e2e.stack import ROOT, Stack

FOLDER = ROOT / "docs" / "clients"
NODE = shutil.which("node")
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
"""With the clients that do not go with our packages."""
SAM = r"I am Sam\. (\d+) prompt tokens\n"

PRINTED = {
    "openai_sync.py": SAM + SAM + r"\{'mode': 'compiled', .*\}\n",
    "openai_async.py": r"I am Sam\.\nkilo ruby positive\n",
    "openai_stream.py": r"I am Sam\.\n\{'mode': 'compiled', .*\}\n",
    "openai_tools.py": r'find_shop \{"city": ?"(Oslo|Tokyo)"\}\ncompiled \d+ tokens saved\n',
    "openai_structured.py": r"label='(positive|negative)'\n",  # a toy: only the shape is sure
    "openai_responses.py": SAM + SAM,
    "langchain_chat.py": SAM + SAM + r"I am Sam\.\n",
    "litellm_completion.py": SAM + SAM + r"I am Sam\.\n",
    "curl.sh": r'task_\w+\n\{.*"content":"I am Sam\.".*"mode":"compiled".*\}\n'
    r"(data: \{.*\}\n\n)+data: \[DONE\]\n\n",
    "fetch.mjs": r"I am Sam\.\ncompiled\nI am Sam\.\n",
}


def test_every_example_is_run_and_listed() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*PRINTED, "README.md"}
    listed = (FOLDER / "README.md").read_text()
    assert all(f"[`{name}`]({name})" in listed for name in PRINTED)


@pytest.mark.parametrize("name", [name for name in PRINTED if name.startswith("openai_")])
def test_a_python_example_prints_its_answers(
    stack: Stack,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # In this process, which has loaded the client: a Python each would take seconds.
    monkeypatch.setattr(sys, "argv", [name, stack.url])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    assert re.fullmatch(PRINTED[name], capsys.readouterr().out)


def test_what_the_readme_shows_prints_what_it_says(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    said = re.findall(r"content\)  # (.+)", program)
    exec(program.replace("http://127.0.0.1:8000", stack.url), {})
    first, second = capsys.readouterr().out.splitlines()
    assert [first] == said
    assert "'mode': 'compiled'" in second


@pytest.mark.parametrize(
    "command",
    [
        (str(PYTHON), "langchain_chat.py"),
        (str(PYTHON), "litellm_completion.py"),
        ("sh", "curl.sh"),
        pytest.param(
            (NODE or "node", "fetch.mjs"),
            marks=pytest.mark.skipif(NODE is None, reason="there is no node"),
        ),
    ],
    ids=lambda command: command[1],
)
def test_an_example_of_another_program_prints_its_answers(
    stack: Stack, command: tuple[str, str]
) -> None:
    done = subprocess.run(
        [*command, stack.url],
        cwd=FOLDER,
        env=child_environment(LITELLM_LOCAL_MODEL_COST_MAP="True"),  # else it asks the internet
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PRINTED[command[1]], done.stdout), done.stdout
