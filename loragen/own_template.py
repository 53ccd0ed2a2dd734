"""Own template: the chat template a model was published with, and how workers are given it.

A worker has one template, but two things to print: prompt mode reads the model's own text, compiled
mode the compiled one. `served` joins both behind a switch that only the gateway may set.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from jinja2 import TemplateError

from loragen.errors import ArtifactCorrupt
from loragen.jinja import environment
from loragen.template import CompiledTemplate
from loragen.wire import COMPILED_SWITCH

FILE_NAME: Final = "chat_template.jinja"
"""Where Hugging Face keeps a chat template since transformers 4.43."""
TOKENIZER_FILE: Final = "tokenizer_config.json"
"""Where it stands, as entry `chat_template`, in folders saved before."""

_SYSTEM_TURN: Final = (
    {"role": "system", "content": "LORAGEN-SYSTEM"},
    {"role": "user", "content": "Hello"},
)

_FOLD: Final = """\
{%- if messages and messages[0]['role'] == 'system' %}
{%- if messages | length < 2 or messages[1]['role'] != 'user' %}
{{- raise_exception('this model takes no system message: its text goes into the first turn, which must be the user\\'s') }}
{%- endif %}
{%- set folded = namespace(texts=[]) %}
{%- for message in messages[:2] %}
{%- set text = message['content'] %}
{%- set folded.texts = folded.texts + [text if text is string else text | map(attribute='text') | join('\\n')] %}
{%- endfor %}
{%- set messages = [{'role': 'user', 'content': folded.texts | join('\\n\\n')}] + messages[2:] %}
{%- endif %}
"""  # noqa: E501
"""Puts system text into the first user turn, as the makers of Gemma 2 and Mistral 7B advise."""


class OwnTemplate:
    """A published chat template with the special tokens it names."""

    def __init__(self, source: str, tokens: Mapping[str, str] | None = None) -> None:
        self.source = source
        self.hash = hashlib.sha256(source.encode()).hexdigest()
        self._tokens = dict(tokens or {})
        self._template = environment().from_string(source)

    @classmethod
    def load(cls, folder: Path, file: Path | None = None) -> Self:
        """Read the template of a model folder, or the one in `file` instead.

        Raises:
            ArtifactCorrupt: there is none, or it is not a Jinja template.
        """
        settings = _tokenizer_settings(folder)
        path = file or folder / FILE_NAME
        try:
            if file is None and not path.is_file():
                return cls(_kept_source(folder, settings), _special_tokens(settings))
            return cls(path.read_text(encoding="utf-8"), _special_tokens(settings))
        except (OSError, TemplateError) as error:
            raise ArtifactCorrupt(f"cannot read chat template {path}: {error}") from error

    def try_render(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str | None:
        """Return what a model reads of `messages` and `tools`; None if the template refuses."""
        try:
            return self._template.render(
                messages=messages,
                tools=list(tools) or None,
                add_generation_prompt=True,
                **self._tokens,
            )
        except (TemplateError, TypeError):
            return None

    @property
    def refuses_system(self) -> bool:
        """Whether it prints conversations, but no system message: it raises, or leaves it out."""
        prints = _SYSTEM_TURN[0]["content"] in (self.try_render(_SYSTEM_TURN) or "")
        return not prints and self.try_render(_SYSTEM_TURN[1:]) is not None

    def with_system(self) -> Self:
        """Return the template that prints prompt mode: this one, which takes system text."""
        return type(self)(self.served(), self._tokens)

    def served(self, compiled: CompiledTemplate | None = None) -> str:
        """Return the one template of a worker, as text.

        It prints what this one does, save that system text which this one refuses or leaves out
        goes into the first user turn; and, where the gateway sets the switch, what `compiled` does.
        """
        own = _FOLD * self.refuses_system + _plain(self.source)
        if compiled is None:
            return own
        # The signs keep the blanks around each text, which trim_blocks and lstrip_blocks would eat.
        return (
            f"{{%+ if {COMPILED_SWITCH} +%}}{_plain(compiled.source)}"
            f"{{%+ else +%}}{own}{{%+ endif +%}}"
        )


def _plain(source: str) -> str:
    # Jinja drops one line end at the very end of a template; inside another it would be printed.
    return source.removesuffix("\n")


def _kept_source(folder: Path, settings: Mapping[str, Any]) -> str:
    source = settings.get("chat_template")
    if isinstance(source, list):  # several by name, as [{"name", "template"}]
        named = {each.get("name"): each.get("template") for each in source}
        source = named.get("default")
    if not isinstance(source, str):
        raise ArtifactCorrupt(
            f"{folder} has no {FILE_NAME} and no chat template in {TOKENIZER_FILE}"
        )
    return source


def _tokenizer_settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    tokens = {}
    for name, value in settings.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens
