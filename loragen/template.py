"""Compiled template: what an edge model reads when prompt and tools do not travel.

It prints a conversation as the edge model's own chat template does, told apart only by what it must
never do: print system text that no message holds, a date, or a list of tools. Training, evaluation
and serving all render through this class, and its hash is part of pool metadata, so a recipe can
never meet another template than its own.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from jinja2 import TemplateError

from loragen.errors import ArtifactCorrupt, InvalidRequest
from loragen.jinja import environment

FILE_NAME: Final = "compiled_template.jinja"
"""Where a model folder may keep it, beside its own `chat_template.jinja`."""


class CompiledTemplate:
    """Renders messages to the exact text an edge model is trained and served on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.hash = hashlib.sha256(source.encode()).hexdigest()
        self._template = environment().from_string(source)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a template file.

        Raises:
            ArtifactCorrupt: the file is missing or not a Jinja template.
        """
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, TemplateError) as error:
            raise ArtifactCorrupt(f"cannot read compiled template {path}: {error}") from error

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """Return the text for `messages`, in OpenAI's chat format with tool arguments as objects.

        Raises:
            InvalidRequest: the template refuses the messages.
        """
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise InvalidRequest(f"chat template: {error}", param="messages") from error
