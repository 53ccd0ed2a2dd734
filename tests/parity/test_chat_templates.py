"""The one template of a worker, rendered by the code of transformers and vLLM that will render it.

Prompt mode is the published template to the letter, compiled mode the compiled one, and the switch
between them is the only thing that the gateway sets.
"""

from types import SimpleNamespace
from typing import Any

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from transformers import PreTrainedTokenizerFast
from vllm.exceptions import VLLMValidationError
from vllm.renderers.hf import resolve_chat_template_content_format, safe_apply_chat_template

from loragen.families import family_template
from loragen.own_template import OwnTemplate
from loragen.template import CompiledTemplate
from loragen.wire import COMPILED_SWITCH
from tests.fakes.published import FAMILY_OF, TOKENS, TOOL_SPEAKERS, TOOLS, published
from tests.fakes.tiny import byte_tokenizer

MODELS = sorted(FAMILY_OF)
SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [
    {"role": "user", "content": "Hello  \n"},
    {"role": "assistant", "content": " Hi\n"},
    {"role": "user", "content": "Bye é 🦊"},
]


class Worker:
    """A tokenizer with the tokens of a model, and the template a worker of it gets."""

    def __init__(self, model: str) -> None:
        first, last = next(tokens for start, tokens in TOKENS.items() if model.startswith(start))
        self.tokenizer: PreTrainedTokenizerFast = byte_tokenizer()
        self.tokenizer.add_special_tokens({"bos_token": first, "eos_token": last})
        self.own: OwnTemplate = published(model)
        self.compiled: CompiledTemplate = family_template(FAMILY_OF[model])
        self.template = self.own.served(self.compiled)

    def tokens(self, chat: Any, *, template: str | None = None, **options: Any) -> list[int]:
        """Return the ids that vLLM makes of a chat."""
        config: Any = None  # vLLM looks at it only where no template is given
        ids: list[int] = safe_apply_chat_template(
            config,
            self.tokenizer,
            chat,
            chat_template=self.template if template is None else template,
            tokenize=True,
            add_generation_prompt=True,
            **options,
        )
        return ids

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text as it is."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


@pytest.fixture(scope="module", params=MODELS)
def worker(request: pytest.FixtureRequest) -> Worker:
    return Worker(request.param)


def test_compiled_mode_has_exactly_the_tokens_of_the_compiled_template(worker: Worker) -> None:
    switched: dict[str, Any] = {COMPILED_SWITCH: True}
    for chat in (TURNS[:1], TURNS, [SYSTEM, *TURNS]):
        wanted = worker.ids(worker.compiled.render(chat))
        assert worker.tokens(chat, **switched) == wanted
        assert worker.tokens(chat, tools=TOOLS, **switched) == wanted


def test_without_the_switch_the_published_template_is_unchanged(worker: Worker) -> None:
    source = worker.own.source
    for tools in (None, TOOLS):
        assert worker.tokens(TURNS, tools=tools) == worker.tokens(
            TURNS, tools=tools, template=source
        )
    if not worker.own.refuses_system:
        chat = [SYSTEM, *TURNS]
        assert worker.tokens(chat) == worker.tokens(chat, template=source)


def test_the_way_vllm_hands_over_contents_is_that_of_the_published_template(
    worker: Worker,
) -> None:
    config: Any = SimpleNamespace(revision=None, code_revision=None, trust_remote_code=False)

    def detected(template: str) -> object:
        return resolve_chat_template_content_format(
            template, None, "auto", worker.tokenizer, model_config=config
        )

    assert detected(worker.template) == detected(worker.own.source)


@pytest.mark.parametrize("model", sorted(TOOL_SPEAKERS))
def test_tools_are_printed_by_the_published_template_only(model: str) -> None:
    worker = Worker(model)
    printed = worker.tokenizer.decode(worker.tokens(TURNS, tools=TOOLS))
    assert "zebra_count" in printed
    switched: dict[str, Any] = {COMPILED_SWITCH: True}
    compiled = worker.tokens(TURNS, tools=TOOLS, **switched)
    assert "zebra_count" not in worker.tokenizer.decode(compiled)


def test_system_text_goes_there_too_where_a_template_leaves_it_out() -> None:
    """As that of the first Phi-3, which prints what users and assistants say and nothing else."""
    source = (
        "{% for message in messages %}{% if message.role == 'user' %}<|user|>{{ message.content }}"
        "{% elif message.role == 'assistant' %}<|assistant|>{{ message.content }}{% endif %}"
        "{% endfor %}<|assistant|>"
    )
    own = OwnTemplate(source)
    assert own.refuses_system
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert own.with_system().try_render(chat) == "<|user|>Be brief.\n\nHello<|assistant|>"


@pytest.mark.parametrize("model", ["gemma-2-2b-it", "mistral-7b-instruct-v0.1-2023"])
def test_system_text_goes_into_the_first_turn_where_the_role_is_refused(model: str) -> None:
    own = published(model)
    assert own.refuses_system
    tokenizer = Worker("gemma-2-2b-it" if "gemma" in model else "mistral-7b-instruct-v0.2")
    folded = [{"role": "user", "content": "Be brief.\n\nHello"}, *TURNS[1:]]
    chat = [SYSTEM, {"role": "user", "content": "Hello"}, *TURNS[1:]]
    served = own.served()
    assert tokenizer.tokens(chat, template=served) == tokenizer.tokens(folded, template=served)
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in chat]
    folding = tokenizer.tokens([*parts[:2], *chat[2:]], template=served)
    assert folding == tokenizer.tokens(folded, template=served)
    with pytest.raises(VLLMValidationError, match="first turn"):
        tokenizer.tokens([SYSTEM, {"role": "assistant", "content": "Hi"}], template=served)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages | tojson(indent=2) }}{{ [1, '<é>'] | tojson(separators=(',', ':')) }}",
        "{% for m in messages %}\n {% if loop.last %}{% break %}{% endif %}\n x\n{% endfor %}\n",
        "a{% generation %}{{ messages[0]['content'] }}{% endgeneration %}b",
        "{{ strftime_now('%Y %B') }}{{ undefined_name }}{{ tools is none }}",
    ],
)
def test_our_jinja_prints_as_that_of_transformers(source: str) -> None:
    theirs = byte_tokenizer().apply_chat_template(TURNS, chat_template=source, tokenize=False)
    assert OwnTemplate(source).try_render(TURNS) == theirs


@pytest.mark.parametrize(
    ("family", "tokenizer"),
    [
        ("mistral-v1", MistralTokenizer.v1()),
        ("mistral-v3", MistralTokenizer.v3()),
        ("mistral-tekken", MistralTokenizer.v3(is_tekken=True)),
    ],
)
def test_mistrals_own_encoder_prints_the_same(family: str, tokenizer: Any) -> None:
    roles_and_texts = (("user", "Hello"), ("assistant", "Hi"), ("user", "Bye"))
    chat = [{"role": role, "content": text} for role, text in roles_and_texts]
    request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate({"messages": chat})
    encoded = tokenizer.encode_chat_completion(request)
    shown = tokenizer.decode(encoded.tokens, special_token_policy=SpecialTokenPolicy.KEEP)
    assert shown.replace("\u2581", " ") == family_template(family).render(chat)
