"""Bootstrap: the pool of a model without a generator, made in a process that loads torch."""

import subprocess
import sys
from pathlib import Path

from config.check import edge_problems
from config.edge_model import EdgeModelSettings
from config.environment import child_environment
from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.families import FAMILIES, compiled_template
from loragen.own_template import OwnTemplate


def make_pool(
    model: Path,
    out: Path,
    *,
    columns: int,
    compiled_choice: str | None,
    chat_template: Path | None,
) -> int:
    """Write the bootstrap pool of a model folder and return the exit status of what made it.

    The templates are found as a worker with these settings finds them.

    Raises:
        ConfigError: the file must not be written there.
        ArtifactCorrupt: a file of the model is missing, or it has no compiled template.
    """
    template_hash = _template_hash(model, compiled_choice, chat_template)
    _require_place(out, model)
    command = (
        *(sys.executable, "-m", "loragen.method", str(model), str(out)),
        *("--columns", str(columns), "--template-hash", template_hash),
    )
    environment = child_environment(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    return subprocess.run(command, env=environment, check=False).returncode


def _template_hash(model: Path, choice: str | None, chat_template: Path | None) -> str:
    edge = EdgeModelSettings(
        name="model", model=model, chat_template=chat_template, max_model_len=16
    )
    for problem in edge_problems(edge):
        raise ArtifactCorrupt(problem)
    compiled = compiled_template(OwnTemplate.load(model, chat_template), model, choice)
    if compiled is None:
        raise ArtifactCorrupt(
            f"the chat template of {model} is of no known family ({', '.join(FAMILIES)}): write "
            "its compiled template and name the file as --compiled-template"
        )
    return compiled.hash


def _require_place(out: Path, model: Path) -> None:
    if out.exists():
        raise ConfigError(f"--out: {out} exists; recipes are of one pool, and no other replaces it")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out: no folder {out.absolute().parent}")
    if out.resolve().parent == model.resolve():
        raise ConfigError(f"--out: {out} would be loaded as weights of the model: choose elsewhere")
