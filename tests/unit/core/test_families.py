"""Compiled templates of the families people run, against the templates they were published with."""

from pathlib import Path
from typing import Any

import pytest

from loragen.errors import ArtifactCorrupt, InvalidRequest
from loragen.families import FAMILIES, compiled_template, family_template, find_family
from loragen.jinja import environment
from loragen.own_template import OwnTemplate
from tests.fakes.published import FAMILY_OF, TOOL_SPEAKERS, published

MODELS = sorted(FAMILY_OF)
USER: dict[str, Any] = {"role": "user", "content": "Hello"}
CALL = {
    "id": "abcdefgh1",
    "type": "function",
    "function": {"name": "zebra_count", "arguments": {"herd": "é"}},
}
TURNS = [USER, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]
TOOL_TURNS = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "7", "tool_call_id": "abcdefgh1"},
]
SYSTEM = {"role": "system", "content": "Be brief."}

LLAMA_3 = "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
PRINTED = {
    "llama-2": "<s>[INST] Hello [/INST] Hi </s><s>[INST] Bye [/INST]",
    "llama-3": f"<|begin_of_text|>{LLAMA_3}<|start_header_id|>assistant<|end_header_id|>\n\nHi"
    f"<|eot_id|>{LLAMA_3.replace('Hello', 'Bye')}<|start_header_id|>assistant<|end_header_id|>\n\n",
    "qwen2.5": "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>\n"
    "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<bos><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nHi<end_of_turn>\n"
    "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
    "mistral-v1": "<s> [INST] Hello [/INST] Hi</s> [INST] Bye [/INST]",
    "mistral-v3": "<s>[INST] Hello[/INST] Hi</s>[INST] Bye[/INST]",
    "mistral-tekken": "<s>[INST]Hello[/INST]Hi</s>[INST]Bye[/INST]",
}
PRINTED["qwen3"] = PRINTED["qwen2.5"]
DATED = ("llama-3.1-8b-instruct", "llama-3.2-1b-instruct")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_is_printed_and_nothing_else(family: str) -> None:
    assert family_template(family).render(TURNS) == PRINTED[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_text_in_parts_is_printed_as_text(family: str) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    chat = [{"role": "user", "content": parts}, *TURNS[1:]]
    shown = family_template(family).render(chat)
    assert shown == PRINTED[family].replace("Hello", "Hel\nlo")


@pytest.mark.parametrize("model", MODELS)
def test_a_published_template_tells_its_family(model: str) -> None:
    assert find_family(published(model)) == FAMILY_OF[model]


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ 1 }}",
        (Path(__file__).parents[3] / "checkpoints/small/edge/chat_template.jinja").read_text(),
    ],
)
def test_an_unknown_template_is_of_no_family(source: str) -> None:
    assert find_family(OwnTemplate(source)) is None


def test_a_look_alike_is_of_no_family() -> None:
    """The first Mistral template differs from the later one in blanks alone."""
    assert find_family(published("mistral-7b-instruct-v0.1-2023")) is None


@pytest.mark.parametrize("model", MODELS)
def test_a_published_template_invents_at_most_one_text_that_the_compiled_lacks(model: str) -> None:
    compiled, own = family_template(FAMILY_OF[model]), published(model)
    chats = [TURNS[:1], TURNS, *([TOOL_TURNS] if model in TOOL_SPEAKERS else [])]
    lengths = set()
    for chat in chats:
        shown = own.try_render([{**turn, "content": turn["content"] or ""} for turn in chat])
        assert shown is not None
        lengths.add(len(shown) - len(compiled.render(chat)))
        assert "You are" not in compiled.render(chat)
        assert "Date" not in compiled.render(chat)
    assert len(lengths) == 1


@pytest.mark.parametrize("model", [each for each in MODELS if each not in DATED])
def test_system_text_in_a_message_is_printed_where_the_model_reads_it(model: str) -> None:
    own, compiled = published(model), family_template(FAMILY_OF[model])
    served = environment().from_string(own.served(compiled))
    chat = [SYSTEM, *TURNS]
    first, last = ("<bos>", "<eos>") if model.startswith("gemma") else ("<s>", "</s>")
    if model.startswith("llama-3"):
        first = "<|begin_of_text|>"
    values = {"bos_token": first, "eos_token": last, "add_generation_prompt": True}
    assert compiled.render(chat) == served.render(messages=chat, **values)
    assert "Be brief." in compiled.render(chat)


def test_llama_3_prints_system_text_without_a_date() -> None:
    shown = family_template("llama-3").render([SYSTEM, USER])
    system = "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    assert shown.startswith(f"<|begin_of_text|>{system}{LLAMA_3}")


@pytest.mark.parametrize("family", FAMILIES)
def test_turns_out_of_order_are_refused_where_the_model_refuses_them(family: str) -> None:
    strict = family.startswith(("llama-2", "gemma", "mistral"))
    if strict:
        with pytest.raises(InvalidRequest, match="alternate"):
            family_template(family).render([USER, USER])
    else:
        family_template(family).render([USER, USER])


def test_what_a_model_folder_says_goes_before_what_is_found(tmp_path: Path) -> None:
    own = published("qwen3-8b")
    found = compiled_template(own, tmp_path, None)
    assert found is not None
    assert found.hash == family_template("qwen3").hash
    named = compiled_template(own, tmp_path, "qwen2.5")
    assert named is not None
    assert named.hash == family_template("qwen2.5").hash
    (tmp_path / "compiled_template.jinja").write_text("{{ messages }}")
    kept = compiled_template(own, tmp_path, None)
    assert kept is not None
    assert kept.source == "{{ messages }}"
    given = compiled_template(own, tmp_path, str(tmp_path / "compiled_template.jinja"))
    assert given is not None
    assert given.hash == kept.hash
    for wrong in ("qwen", str(tmp_path / "none.jinja")):
        with pytest.raises(ArtifactCorrupt, match="compiled_template"):
            compiled_template(own, tmp_path, wrong)
