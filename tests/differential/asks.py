"""Asks: random requests, each drawn from the seed and its number alone."""

import string
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final, Literal

from transformers import AutoTokenizer

from loragen.recipe import Level, Recipe
from loragen.wire import RECIPE_FIELD, RECIPE_HEADER
from tests.differential.grammar import Grammar, draw_grammar
from tests.fakes.tiny import TinyEdge

Sampling = Literal["greedy", "top one", "seeded"]
"""How tokens are chosen.

greedy   temperature 0, which vLLM refuses for several answers
top one  temperature 1 among the one most likely token: greedy, also for several answers
seeded   temperature 1 among the TOP_K most likely
"""

TOP_K: Final = 20
POPULAR: Final = 8
"""Recipes that are asked for again and again; all others come once."""
_PREFIXES: Final = 4
_MAX_ANSWER: Final = 24
_LETTERS: Final = string.ascii_letters + string.digits + string.punctuation + " "
_TEMPLATE_TOKENS: Final = 3


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and how its client behaves."""

    number: int
    recipe: Recipe | None
    prompt: tuple[int, ...]
    """All tokens the model has to read."""
    message: str | None
    """The text of a chat's only message; None asks for a completion of `prompt`."""
    max_tokens: int
    answers: int
    sampling: Sampling
    logprobs: int | None
    prompt_logprobs: bool
    grammar: Grammar | None
    ignores_end: bool
    is_stream: bool
    has_recipe_in_body: bool
    priority: int
    pause: float
    """Seconds between the ask before and this one."""
    patience: float | None
    """Seconds after which the client hangs up."""

    @property
    def path(self) -> str:
        """Where it is sent."""
        return "/v1/completions" if self.message is None else "/v1/chat/completions"

    @property
    def headers(self) -> dict[str, str]:
        """The recipe, if it travels in the header."""
        if self.recipe is None or self.has_recipe_in_body:
            return {}
        return {RECIPE_HEADER: self.recipe.text}

    def kinds(self) -> Iterator[str]:
        """Say what kinds of request it is of."""
        yield "chat" if self.message is not None else "completion"
        yield self.sampling
        kinds = {
            "streamed": self.is_stream,
            "several answers": self.answers > 1,
            "grammar": self.grammar is not None,
            "log-probabilities": self.logprobs is not None,
            "log-probabilities of the prompt": self.prompt_logprobs,
            "no recipe": self.recipe is None,
            "recipe in the body": self.recipe is not None and self.has_recipe_in_body,
        }
        yield from (kind for kind, is_one in kinds.items() if is_one)

    def body(self, model: str) -> dict[str, Any]:
        """Return the request."""
        fields: dict[str, Any] = {
            "model": model,
            "max_tokens": self.max_tokens,
            "n": self.answers,
            "stream": self.is_stream,
            "ignore_eos": self.ignores_end,
            "priority": self.priority,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **self._sampling(),
            **self._logprobs(),
            **(self.grammar.fields() if self.grammar else {}),
        }
        if self.message is None:
            fields["prompt"] = list(self.prompt)
        else:
            fields["messages"] = [{"role": "user", "content": self.message}]
        if self.is_stream:
            fields["stream_options"] = {"include_usage": True}
        if self.recipe is not None and self.has_recipe_in_body:
            fields[RECIPE_FIELD] = self.recipe.text
        return fields

    def _sampling(self) -> dict[str, Any]:
        if self.sampling == "greedy":
            return {"temperature": 0}
        top_k = 1 if self.sampling == "top one" else TOP_K
        return {"temperature": 1, "top_k": top_k, "seed": self.number}

    def _logprobs(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"prompt_logprobs": 1} if self.prompt_logprobs else {}
        if self.logprobs is None:
            return fields
        if self.message is None:
            return {**fields, "logprobs": self.logprobs}
        return {**fields, "logprobs": True, "top_logprobs": self.logprobs}


class AskDrawer:
    """Draws asks for one tiny model."""

    def __init__(self, tiny: TinyEdge, *, max_model_len: int, seed: int | str) -> None:
        self._tiny = tiny
        self._max_model_len = max_model_len
        self._seed = seed
        self._tokenizer = AutoTokenizer.from_pretrained(tiny.model)
        random = Random(f"prefixes {seed}")
        self._prefixes = [_text(random, max_model_len) for _ in range(_PREFIXES)]

    def draw(self, number: int) -> Ask:
        """Return the ask of this number."""
        random = Random(f"ask {self._seed} {number}")
        grammar = draw_grammar(random) if _happens(random, 0.12) else None
        answers = random.choice((2, 3)) if _happens(random, 0.15) else 1
        sampling: Sampling = random.choices(("greedy", "top one", "seeded"), (6, 1, 2))[0]
        if grammar or (answers > 1 and sampling == "greedy"):
            sampling = "top one"
        # As much as the longest text of a grammar, or less than it; else a few tokens.
        max_tokens = random.randint(1, 40 if grammar else _MAX_ANSWER)
        longest = self._max_model_len - max_tokens - _TEMPLATE_TOKENS
        message, prompt = self._prompt(random, longest)
        is_stream = _happens(random, 0.5)
        return Ask(
            number=number,
            recipe=self._recipe(random, number),
            prompt=prompt,
            message=message,
            max_tokens=max_tokens,
            answers=answers,
            sampling=sampling,
            logprobs=random.choice((None, 0, 1, 5)),
            prompt_logprobs=not is_stream and _happens(random, 0.06),
            grammar=grammar,
            ignores_end=grammar is None and _happens(random, 0.5),
            is_stream=is_stream,
            has_recipe_in_body=_happens(random, 0.3),
            priority=random.randrange(4),
            pause=random.expovariate(20) if _happens(random, 0.05) else 0.0,
            patience=random.uniform(0.01, 0.4) if _happens(random, 0.06) else None,
        )

    def misled(self, number: int) -> tuple[Ask, Ask]:
        """Return an ask, and the same with another recipe or none, which its logprobs show."""
        ask = replace(
            self.draw(number), recipe=self._popular(0), logprobs=0, grammar=None, patience=None
        )
        return ask, replace(ask, recipe=None if number % 2 else self._popular(1))

    def _recipe(self, random: Random, number: int) -> Recipe | None:
        kind = random.choices(("none", "popular", "fresh", "zero"), (15, 40, 43, 2))[0]
        if kind == "none":
            return None
        if kind == "popular":
            return self._popular(min(int(random.expovariate(0.4)), POPULAR - 1))
        level = Level.PAPER if _happens(random, 0.1) else Level.DENSE
        scale = 0.0 if kind == "zero" else 1.0
        return self._tiny.recipe(POPULAR + number, level=level, scale=scale)

    def _popular(self, rank: int) -> Recipe:
        return self._tiny.recipe(rank)

    def _prompt(self, random: Random, longest: int) -> tuple[str | None, tuple[int, ...]]:
        """Return the message of a chat, or None, and the tokens to read."""
        length = random.randint(1, longest if _happens(random, 0.3) else min(longest, 48))
        shared = random.randint(0, length) if _happens(random, 0.6) else 0
        text = random.choice(self._prefixes)[:shared] + _text(random, length - shared)
        if _happens(random, 0.5):
            return None, tuple(self._tokenizer(text)["input_ids"])
        messages = [{"role": "user", "content": text}]
        tokens = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        return text, tuple(tokens)


def _text(random: Random, length: int) -> str:
    return "".join(random.choices(_LETTERS, k=length))


def _happens(random: Random, share: float) -> bool:
    return random.random() < share
