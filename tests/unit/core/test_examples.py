"""Few-shot examples are found however they are written, and nothing else is taken for one."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragen.examples import MAX_EXAMPLES, example_messages

WORDS = st.lists(
    st.sampled_from(
        ["refund", "my", "order 12", "is late!", "(again)", "näh", "価格?", "a-b", "5 %"]
    ),
    min_size=1,
    max_size=6,
).map(" ".join)
PAIRS = [
    ("User", "Assistant"), ("user", "assistant"), ("Human", "AI"), ("Customer", "Agent"),
    ("Q", "A"), ("Question", "Answer"), ("INPUT", "OUTPUT"), ("Message", "Label"),
    ("Example input", "Example output"), ("Text", "Result"),
]  # fmt: skip
STYLES = [
    "{q}: {m}\n{a}: {r}\n\n",
    "{q}: {m}\n{a}: {r}\n",
    "{q}: {m}\n\n{a}: {r}\n\n",
    "{q}: {m} {a}: {r}\n",
    "{q}: {m} / {a}: {r}\n",
    '- {q}: "{m}"\n  {a}: "{r}"\n',
    "{n}. {q}: {m}\n   {a}: {r}\n",
    "({n}) {q}: {m}\n{a}: {r}\n",
    "{q} {n}: {m}\n{a} {n}: {r}\n",
    "**{q}:** {m}\n**{a}:** {r}\n\n",
    "**{q}**: {m}\n**{a}**: {r}\n\n",
    "### Example {n}\n{q}: {m}\n{a}: {r}\n",
    "> {q}: {m}\n> {a}: {r}\n",
    "### {q}:\n{m}\n### {a}:\n{r}\n\n",
    "{q}: “{m}”\r\n{a}: {r}\r\n",
]


@given(
    messages=st.lists(WORDS, min_size=1, max_size=MAX_EXAMPLES, unique=True),
    reply=WORDS,
    pair=st.sampled_from(PAIRS),
    style=st.sampled_from(STYLES),
    before=st.sampled_from(["", "You sort mail. Answer with a label.\n\n", "Rules:\n- be kind\n"]),
    after=st.sampled_from(["", "\nNever explain.\n", "\nOutput: the label only.\n"]),
)
def test_examples_are_found_in_any_common_style(
    messages: list[str],
    reply: str,
    pair: tuple[str, str],
    style: str,
    before: str,
    after: str,
) -> None:
    asker, answerer = pair
    examples = "".join(
        style.format(q=asker, a=answerer, m=message, r=reply, n=number)
        for number, message in enumerate(messages, start=1)
    )
    assert example_messages(before + examples + after) == messages


@given(st.text(max_size=400))
def test_no_text_breaks_it_and_what_it_finds_stands_in_the_text(text: str) -> None:
    found = example_messages(text)
    assert len(found) <= MAX_EXAMPLES
    lines = text.splitlines()
    for message in found:
        assert message == message.strip() != ""
        assert all(any(part in line for line in lines) for part in message.splitlines())


@given(
    st.lists(
        st.sampled_from(["User:", "A:", "Q:", " ", "\n", "**", "1.", "x", ":", "- "]), max_size=60
    )
)
def test_no_jumble_of_labels_breaks_it(parts: list[str]) -> None:
    assert len(example_messages("".join(parts))) <= MAX_EXAMPLES


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "You are a helpful assistant: be kind.",
        "Answer each question: shortly.",
        "Output: JSON only.",
        "Q: what is asked first?",
        "User: hello\nAnswer: not an assistant's",
        "Input: <the message>\nOutput: <the label>",
        "Input: {text}\nOutput: the label",
        "User: ...\nAssistant: ...",
        "Question: how?\n\nThen think.\nAnswer: yes",
        "User: \nAssistant: hello",
        "User:\n\nAssistant: hello",
    ],
)
def test_what_is_no_example_is_none(prompt: str) -> None:
    assert example_messages(prompt) == []


def test_a_message_may_have_lines_and_is_taken_once() -> None:
    prompt = "User: Dear all,\nit broke.\nAssistant: B2\nUser: Hi\nAssistant: A1\nUser: Hi\nAI: A1"
    assert example_messages(prompt) == ["Dear all,\nit broke.", "Hi"]


def test_there_is_an_end_to_it() -> None:
    prompt = "".join(f"Q: number {number}?\nA: yes\n" for number in range(50))
    assert example_messages(prompt) == [f"number {number}?" for number in range(MAX_EXAMPLES)]


@pytest.mark.parametrize(
    "hostile",
    [
        " " * 300_000,
        "\t \u3000" * 100_000,
        "User:" * 60_000,
        "User: " + " A" * 150_000,
        "User: " + "A:" * 150_000,
        "User: " + " Q:" * 100_000,
        "User: x\n" * 40_000,
        "User: " + "x\n" * 150_000,
        "*" * 300_000,
        "- " * 150_000,
        "1." * 150_000,
        "User" + " " * 300_000 + ":",
        "User:" + "\n" * 300_000,
    ],
)
def test_hostile_text_is_read_in_linear_time(hostile: str) -> None:
    """300,000 characters take milliseconds; squared they would take minutes."""
    started = time.process_time()
    example_messages(hostile)
    assert time.process_time() - started < 5
