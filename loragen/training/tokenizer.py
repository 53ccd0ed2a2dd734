"""Tokenizer of the checkpoints: a byte-fallback BPE over the words of the task suite.

It follows Llama 2 (spaces as U+2581, bytes for unknown characters), so that streaming detokenisers
and grammar engines know it. Unlike Llama 2 it adds no space in front of a text: answers start
without one, and the pieces of a chat can be tokenized apart and joined.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from loragen.suite.splits import Catalogue, Split

PAD: Final = "<pad>"
BOS: Final = "<s>"
END: Final = "<|end|>"
"""End of any turn, and what stops generation."""
SYSTEM: Final = "<|system|>"
ASSISTANT: Final = "<|assistant|>"
USER: Final = "<|user|>"
ROLES: Final = (SYSTEM, USER, ASSISTANT, "<|tool|>")
SPACE: Final = "\u2581"

_START: Final = """\
{{- '<s>' }}
"""
_TOOLS_ALONE: Final = """\
{%- if tools and messages[0]['role'] not in ['system', 'developer'] %}
{{- '<|system|>' ~ tool_list() ~ '<|end|>' }}
{%- endif %}
"""
_TURN: Final = """\
{%- for message in messages %}
{%- set role = 'system' if message['role'] == 'developer' else message['role'] %}
{%- if role not in ['system', 'user', 'assistant', 'tool'] %}
{{- raise_exception('unknown role ' ~ role) }}
{%- endif %}
{%- set content = message['content'] or '' %}
{{- '<|' ~ role ~ '|>' }}
{{- content if content is string else content | map(attribute='text') | join('\\n') }}
"""
_TOOLS_AFTER_PROMPT: Final = """\
{%- if tools and loop.first and role == 'system' %}
{{- '\\n\\n' ~ tool_list() }}
{%- endif %}
"""
_END_OF_TURN: Final = """\
{%- for call in message['tool_calls'] or [] %}
{%- set arguments = call['function']['arguments'] %}
{{- '<tool_call>{"name": "' ~ call['function']['name'] ~ '", "arguments": ' }}
{{- arguments if arguments is string else arguments | tojson }}
{{- '}</tool_call>' }}
{%- endfor %}
{{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>' }}
{%- endif %}
"""
_TOOL_LIST: Final = """\
{%- macro tool_list() -%}
{{- 'Tools:' -}}
{%- for tool in tools -%}
{%- set function = tool['function'] -%}
{{- '\\n{"name":"' ~ function['name'] ~ '"' -}}
{{- ',"description":' ~ function['description'] | tojson if function['description'] -}}
{{- ',"parameters":' ~ function['parameters'] | tojson(separators=(',', ':')) if function['parameters'] -}}
{{- '}' -}}
{%- endfor -%}
{%- endmacro -%}
"""  # noqa: E501

COMPILED_TEMPLATE: Final = _START + _TURN + _END_OF_TURN
"""Prints nothing that no message holds."""
CHAT_TEMPLATE: Final = (
    _TOOL_LIST + _START + _TOOLS_ALONE + _TURN + _TOOLS_AFTER_PROMPT + _END_OF_TURN
)
"""The same, and tools in the system turn."""

_PIECES: Final = rf"{SPACE}?\p{{L}}+|{SPACE}?\p{{N}}|{SPACE}?[^\p{{L}}\p{{N}}{SPACE}\s]|{SPACE}+|\s"
"""A word, a digit or a sign, each with the space in front of it."""
_CODES: Final = rf"{SPACE}?(?:[A-Z][0-9]|[0-9]{{2}})(?![\p{{L}}\p{{N}}])|"
"""A code or a number of two characters, for catalogues that have such words."""


def train_tokenizer(catalogue: Catalogue, vocab_size: int, seed: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of at most `vocab_size` tokens in which suite words are whole."""
    has_codes = any(word[-1].isdigit() for word in catalogue.words)
    pieces = Regex(_CODES + _PIECES if has_codes else _PIECES)
    learner = Tokenizer(BPE())
    _set_pieces(learner, pieces)
    specials = [PAD, BOS, END, *ROLES]
    fixed = specials + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(fixed),
        initial_alphabet=[SPACE, "\n", *(chr(code) for code in range(33, 127))],
        show_progress=False,
    )
    learner.train_from_iterator(_corpus(catalogue, Random(f"tokenizer/{seed}")), trainer)
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    vocab = {token: index for index, token in enumerate([*fixed, *(token for token, _ in learned)])}
    merges = _merges(learner)
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, byte_fallback=True))
    _set_pieces(tokenizer, pieces)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocab[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _set_pieces(tokenizer: Tokenizer, pieces: Regex) -> None:
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="isolated")


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _corpus(catalogue: Catalogue, rng: Random) -> Iterator[str]:
    """Yield suite text, and every suite word often enough to become one token in both forms."""
    for family in catalogue.seen:
        for index in range(400):
            prompt = catalogue.draw(family, Split.TRAIN, index)
            turn = prompt.ask(rng)
            yield from (prompt.text, turn.question, turn.answer, turn.default)
    for word in catalogue.words:
        yield from [word, f" {word}"] * 50
    for sentence in catalogue.sentences:
        yield from [sentence] * 50
