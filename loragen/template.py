"""Compiled template: what an edge model reads when the system prompt does not travel.

It is the edge model's own chat template, told apart only by what it must never do: print system
text that no message holds. Training, evaluation and serving all render through this class, and its
hash is part of pool metadata, so a recipe can never meet another template than its own.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from loragen.errors import ArtifactCorrupt, InvalidRequest

FILE_NAME: Final = "chat_template.jinja"
"""Where Hugging Face keeps a chat template since transformers 4.43."""
TOKENIZER_FILE: Final = "tokenizer_config.json"
"""Where it stands, as entry `chat_template`, in folders saved before."""


class CompiledTemplate:
    """Renders messages to the exact text an edge model is trained and served on."""

    def __init__(self, source: str) -> None:
        # The settings of transformers' `apply_chat_template`; a test keeps the two equal.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        self.source = source
        self.hash = hashlib.sha256(source.encode()).hexdigest()
        self._template = environment.from_string(source)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a template file.

        Raises:
            ArtifactCorrupt: the file is missing or not a Jinja template.
        """
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, TemplateError) as error:
            raise ArtifactCorrupt(f"cannot read chat template {path}: {error}") from error

    @classmethod
    def of_tokenizer(cls, folder: Path) -> Self:
        """Read the template that a model folder keeps among its tokenizer's settings.

        Raises:
            ArtifactCorrupt: there is none, or it is not a Jinja template.
        """
        try:
            kept = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
            source = kept["chat_template"]
            if isinstance(source, list):  # several by name, as [{"name", "template"}]
                source = {each["name"]: each["template"] for each in source}["default"]
            return cls(source)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactCorrupt(
                f"{folder} has no {FILE_NAME} and no chat template in {TOKENIZER_FILE}"
            ) from error
        except TemplateError as error:
            raise ArtifactCorrupt(f"cannot read the chat template in {folder}: {error}") from error

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """Return the text for `messages` (OpenAI chat format, string contents).

        Raises:
            InvalidRequest: the template refuses the messages.
        """
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise InvalidRequest(f"chat template: {error}", param="messages") from error


def _raise(message: str) -> None:
    raise TemplateError(message)
