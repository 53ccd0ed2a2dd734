"""Families: the compiled templates of models that many people run.

A model belongs to a family if its own template prints our probes as the family's compiled template
does, save for one text that it puts in by itself, the same every time: the hidden system text. So
a match is a proof by example, whatever the template's wording, and what does not match is left to
prompt mode rather than guessed.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from loragen.errors import ArtifactCorrupt, InvalidRequest
from loragen.own_template import OwnTemplate
from loragen.template import FILE_NAME, CompiledTemplate

FAMILIES: Final = (
    "llama-2",
    "llama-3",
    "qwen2.5",
    "qwen3",
    "gemma",
    "mistral-v1",
    "mistral-v3",
    "mistral-tekken",
)

_Probe = Sequence[Mapping[str, Any]]

_CALL: Final = {
    "id": "callabcd1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Rome", "days": 2}},
}
_CHAT: Final = (
    {"role": "user", "content": " Hello \n"},
    {"role": "assistant", "content": "Hi, \n how are you? "},
    {"role": "user", "content": "Fine"},
)
_CHATS: Final[tuple[_Probe, ...]] = (
    _CHAT[:1],
    _CHAT,
    (_CHAT[0], {"role": "assistant", "content": "<think>\nWell\n</think>\n\nHi"}, _CHAT[2]),
)
_TOOL_TURNS: Final[_Probe] = (
    _CHAT[0],
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "content": "sunny", "tool_call_id": "callabcd1"},
)
_TOOL_CHATS: Final[tuple[_Probe, ...]] = (
    _TOOL_TURNS,
    (*_TOOL_TURNS, {"role": "assistant", "content": "It is sunny."}, _CHAT[2]),
)


def family_template(name: str) -> CompiledTemplate:
    """Return the compiled template of one of FAMILIES."""
    assert name in FAMILIES
    source = files("loragen") / "templates" / f"{name}.jinja"
    return CompiledTemplate(source.read_text(encoding="utf-8"))


def find_family(own: OwnTemplate) -> str | None:
    """Return the family a model's own template belongs to."""
    return next((name for name in FAMILIES if _matches(own, family_template(name))), None)


def compiled_template(
    own: OwnTemplate, folder: Path, choice: str | None
) -> CompiledTemplate | None:
    """Return the compiled template of the model in `folder`; None if it is of no known family.

    `choice` is a family or a file; without one it is the folder's own file, else a family's.

    Raises:
        ArtifactCorrupt: the choice is neither, or the file is no template.
    """
    if choice in FAMILIES:
        return family_template(choice)
    if choice is not None:
        if not Path(choice).is_file():
            raise ArtifactCorrupt(
                f"compiled_template: no file {choice!r}, and no family: {', '.join(FAMILIES)}"
            )
        return CompiledTemplate.load(Path(choice))
    if (folder / FILE_NAME).is_file():
        return CompiledTemplate.load(folder / FILE_NAME)
    family = find_family(own)
    return None if family is None else family_template(family)


def _matches(own: OwnTemplate, compiled: CompiledTemplate) -> bool:
    hidden = set()
    # A template that does not speak of tools says nothing with what it makes of them.
    for probe in (*_CHATS, *_TOOL_CHATS) if "tool" in own.source else _CHATS:
        shown, wanted = own.try_render(probe), _try_compiled(compiled, probe)
        if shown is None or wanted is None:
            if shown != wanted:
                return False
            continue
        inserted = _inserted(shown, wanted)
        if inserted is None:
            return False
        hidden.add(inserted)
    return len(hidden) == 1


def _try_compiled(compiled: CompiledTemplate, probe: _Probe) -> str | None:
    try:
        return compiled.render(probe)
    except InvalidRequest:
        return None


def _inserted(longer: str, text: str) -> str | None:
    """Return what stands in `longer` at one place more than in `text`; None if they differ else."""
    extra = len(longer) - len(text)
    pairs = zip(longer, text, strict=False)
    start = next((at for at, (one, other) in enumerate(pairs) if one != other), len(text))
    if extra < 0 or longer[start + extra :] != text[start:]:
        return None
    return longer[start : start + extra]
