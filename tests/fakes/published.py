"""Chat templates as they were published, with the tokens of their models."""

from pathlib import Path
from typing import Any, Final

from loragen.own_template import OwnTemplate

FOLDER: Final = Path(__file__).parents[1] / "data" / "chat_templates"

TOKENS: Final = {
    "llama-2": ("<s>", "</s>"),
    "llama-3": ("<|begin_of_text|>", "<|eot_id|>"),
    "qwen": ("<|endoftext|>", "<|im_end|>"),
    "gemma": ("<bos>", "<eos>"),
    "mistral": ("<s>", "</s>"),
}
"""First and last token of a text, by how the model's name begins."""

FAMILY_OF: Final = {
    "llama-2-7b-chat": "llama-2",
    "llama-3-8b-instruct": "llama-3",
    "llama-3.1-8b-instruct": "llama-3",
    "llama-3.2-1b-instruct": "llama-3",
    "qwen2-7b-instruct": "qwen2.5",
    "qwen2.5-7b-instruct": "qwen2.5",
    "qwen3-8b": "qwen3",
    "gemma-2-2b-it": "gemma",
    "gemma-3-1b-it": "gemma",
    "mistral-7b-instruct-v0.2": "mistral-v1",
    "mistral-7b-instruct-v0.3": "mistral-v3",
    "mistral-nemo-instruct-2407": "mistral-tekken",
}
"""Compiled template that fits each model."""

TOOL_SPEAKERS: Final = (
    "llama-3.1-8b-instruct",
    "llama-3.2-1b-instruct",
    "qwen2.5-7b-instruct",
    "qwen3-8b",
    "mistral-7b-instruct-v0.3",
    "mistral-nemo-instruct-2407",
)
"""Models whose template prints tools."""

TOOLS: Final[list[dict[str, Any]]] = [
    {
        "type": "function",
        "function": {
            "name": "zebra_count",
            "description": "Counts striped horses.",
            "parameters": {"type": "object", "properties": {"herd": {"type": "string"}}},
        },
    }
]


def published(name: str) -> OwnTemplate:
    """Return the template of a model."""
    first, last = next(tokens for start, tokens in TOKENS.items() if name.startswith(start))
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return OwnTemplate(source, {"bos_token": first, "eos_token": last})
