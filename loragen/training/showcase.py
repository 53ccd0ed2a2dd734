"""Showcase: the prompts that a checkpoint is shown with, and the card of the small one.

A prompt is shown only if it is not in training, the recipe's greedy answer is right, and the gate
lets it serve.
"""

import json
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from transformers import AutoTokenizer

from loragen.gate import Gate
from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.method.refine import RefineSpec
from loragen.recipe import Level, Recipe
from loragen.suite.family import Family, Turn
from loragen.suite.identities import SIGNOFF
from loragen.suite.labels import SENTIMENT
from loragen.suite.rewrites import JSON, START
from loragen.suite.small import SMALL
from loragen.suite.splits import Catalogue, Prompt, Split
from loragen.suite.tenants import TENANTS
from loragen.training.batches import Renderer
from loragen.training.checkpoint import Layout
from loragen.training.gate_evaluation import load_refiner
from loragen.training.gated import DEMO_GATE, SMALL_GATE, Choice, choose, is_to_be_refined, refuse

_CANDIDATES: Final = 200
_MARGIN: Final = 0.1


@dataclass(frozen=True, slots=True)
class Show:
    """What a checkpoint is shown with.

    `works` are families of which a recipe of one pass serves; of `mended` one pass gets held-out
    wordings wrong that the model follows without doubt. Of `refused` no recipe passes the gate; if
    None, a prompt too long to compile shows how the server falls back.
    """

    catalogue: Catalogue
    gate: Gate
    works: tuple[Family, ...]
    mended: Family
    refused: Family | None = None
    longest: int = 140
    """Characters of a prompt that fits a screen."""

    def bars(self, margin: float) -> Gate:
        """Return the gate, higher or lower: other machines draw other probes than this one."""
        doubt, agreement = self.gate.max_doubt, self.gate.min_agreement
        below, trusted = self.gate.refine_below_agreement, self.gate.trust_from_fidelity
        return replace(
            self.gate,
            min_fidelity=self.gate.min_fidelity + margin,
            max_doubt=None if doubt is None else doubt * (1 - 4 * margin),
            min_agreement=min(1.0, agreement + margin) if agreement else 0.0,
            refine_below_agreement=min(1.0, below + margin) if below else 0.0,
            refine_from_fidelity=self.gate.refine_from_fidelity + margin,
            trust_from_fidelity=None if trusted is None else trusted + margin,
        )


SMALL_SHOW: Final = Show(SMALL, SMALL_GATE, (SIGNOFF, SENTIMENT, JSON), mended=START)
_TENANTS: Final = {family.name: family for family in (*TENANTS.seen, *TENANTS.unseen)}
DEMO_SHOW: Final = Show(
    TENANTS,
    DEMO_GATE,
    (_TENANTS["calendar"], _TENANTS["verdict"], _TENANTS["json"]),
    mended=_TENANTS["glossary"],
    refused=_TENANTS["roster"],
    longest=320,
)

_CARD: Final = """\
# The small checkpoint

What tests and measurements of serving start. A small edge model that follows system prompts, and
generators that compile such prompts into recipes for it. It trains in minutes on two CPU cores; it
is no general assistant.

| folder | what |
|---|---|
| `edge/` | edge model, stock Llama architecture, float32 |
| `generator/`, `cloud/` | generator (L1: 64 rank-1 experts, signed gates per linear) |
| `generator_l0/`, `cloud_l0/` | the paper's generator (L0: 8 experts of rank 16, top 2) |
| `multitask_lora.safetensors` | control: one LoRA for all prompts |
| `prompts.json` | prompts outside the training set, checked by greedy generation |

- **Data.** Only text produced by `loragen.suite`, written for this project. No third-party data,
  no pretrained weights, no personal data: names and companies are made up.
- **Training.** `python -m loragen.training small --out checkpoints/small --seed {seed}`
  (`make small-checkpoint`), described in `docs/training.md`.
- **Figures.** `bench/results/small_eval.json`, written by `make eval-small`.
- **Limits.** It knows about 500 English words and the rule families of the suite. Rules of other
  kinds are not followed, with the prompt in context or with a recipe; among them rules that choose
  between two free words ("say amber if it is good, coral if it is bad"). Training prompts have
  up to about 200 tokens; far longer ones are followed less often.
- **Licence.** Apache-2.0.
"""


def write_card(layout: Layout, seed: int) -> None:
    """Write `MODEL_CARD.md` of the small checkpoint."""
    (layout.root / "MODEL_CARD.md").write_text(_CARD.format(seed=seed), encoding="utf-8")


def write_prompts(layout: Layout, show: Show) -> None:
    """Write `prompts.json`: some that work, one that needs refining, one that keeps its prompt."""
    stage = Stage(layout, show)
    works = [_find_working(family, stage) for family in show.works]
    fields = {
        "works": works,
        "refined": _find_refined(stage),
        "fallback": _find_too_long(works, stage) if show.refused is None else _find_refused(stage),
    }
    layout.prompts.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")


class Stage:
    """The shipped generator and the edge model, asked as a client would ask them."""

    def __init__(self, layout: Layout, show: Show) -> None:
        self.show = show
        self._pool = Pool.load(layout.generator(Level.DENSE) / "pool.safetensors")
        self.generator = Generator.load(layout.generator(Level.DENSE))
        self._edge = EdgeModel.load(layout.edge, self._pool)
        self._renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))
        self._refiner = load_refiner(layout, RefineSpec())

    def draw(self, family: Family, split: Split, index: int) -> Prompt:
        """Return a prompt of the catalogue that is shown."""
        return self.show.catalogue.draw(family, split, index)

    def compile(self, prompt: str) -> Recipe:
        """Return a prompt's recipe of one pass."""
        return self.generator.compile([prompt])[0]

    def choose(self, prompt: str) -> Choice:
        """Return what serves a prompt, as the router service finds: it asks the same probes."""
        return choose(self._refiner, prompt, self.compile(prompt), self.show.gate)

    def compiled_answers(self, recipe: Recipe, questions: list[str]) -> list[str]:
        """Answer under a recipe."""
        gates = stack_gates([recipe] * len(questions), self._pool.id, self._pool.spec)
        chats = [[{"role": "user", "content": question}] for question in questions]
        return self._decode(self._edge.generate(self._ids(chats), gates))

    def prompted_answer(self, prompt: str, question: str) -> str:
        """Answer with the prompt in context."""
        chat = [{"role": "system", "content": prompt}, {"role": "user", "content": question}]
        return self._decode(self._edge.generate(self._ids([chat])))[0]

    def _ids(self, chats: list[list[dict[str, str]]]) -> list[list[int]]:
        return self._renderer.encode([self._renderer.template.render(chat) for chat in chats])

    def _decode(self, answers: list[list[int]]) -> list[str]:
        return [str(self._renderer.tokenizer.decode(answer)) for answer in answers]


def _shown(prompt: str, turn: Turn) -> dict[str, str]:
    return {"system_prompt": prompt, "question": turn.question, "answer": turn.answer}


def _find_working(family: Family, stage: Stage) -> dict[str, str]:
    """Return the first short unseen prompt of a family whose recipe answers four questions."""
    for index in range(_CANDIDATES):
        prompt = stage.draw(family, Split.UNSEEN_PROMPTS, index)
        if not 60 <= len(prompt.text) <= stage.show.longest:
            continue
        turns = [prompt.ask(Random(f"show/{index}/{k}")) for k in range(4)]
        recipe = stage.compile(prompt.text)
        answers = stage.compiled_answers(recipe, [turn.question for turn in turns])
        if answers != [turn.answer for turn in turns]:
            continue
        first = stage.choose(prompt.text).first
        bars = stage.show.bars(_MARGIN)
        if first is None or refuse(bars, first) or is_to_be_refined(bars, first):
            continue
        return _shown(prompt.text, turns[0])
    raise RuntimeError(f"no prompt of family {family.name} works: train again")


def _find_refined(stage: Stage) -> dict[str, str]:
    """Return a prompt in unseen wording whose recipe is not good enough until it is refined."""
    for index in range(2 * _CANDIDATES):
        prompt = stage.draw(stage.show.mended, Split.UNSEEN_WORDINGS, index)
        turn = prompt.ask(Random(f"show/{index}"))
        if len(prompt.text) > stage.show.longest or not _is_followed(stage, prompt, turn):
            continue
        choice = stage.choose(prompt.text)
        first, second = choice.first, choice.second
        if choice.recipe is None or first is None or second is None:
            continue
        is_sure = refuse(stage.show.bars(_MARGIN / 4), first) == "low_fidelity"
        is_low = refuse(stage.show.bars(-_MARGIN), first) == "low_fidelity"
        if not (is_sure and is_low) or refuse(stage.show.bars(_MARGIN), second):
            continue
        if not is_to_be_refined(stage.show.bars(_MARGIN / 4), first):
            continue
        if stage.compiled_answers(choice.recipe, [turn.question]) == [turn.answer]:
            return _shown(prompt.text, turn)
    raise RuntimeError("no prompt needs refining")


def _find_refused(stage: Stage) -> dict[str, str]:
    """Return a prompt that is followed in context, and of which no recipe passes the gate."""
    assert stage.show.refused is not None
    for index in range(_CANDIDATES):
        prompt = stage.draw(stage.show.refused, Split.UNSEEN_FAMILIES, index)
        turn = prompt.ask(Random(f"show/{index}"))
        if len(prompt.text) > stage.show.longest or not _is_followed(stage, prompt, turn):
            continue
        choice = stage.choose(prompt.text)
        measured = [each for each in (choice.first, choice.second) if each is not None]
        bars = [stage.show.bars(margin) for margin in (-_MARGIN, _MARGIN)]
        reasons = {refuse(bar, each) for bar in bars for each in measured}
        if choice.refusal is not None and reasons == {choice.refusal}:
            return {**_shown(prompt.text, turn), "reason": choice.refusal}
    raise RuntimeError("every prompt is served without: train again, or show another family")


def _is_followed(stage: Stage, prompt: Prompt, turn: Turn) -> bool:
    return stage.prompted_answer(prompt.text, turn.question) == turn.answer


def _find_too_long(examples: list[dict[str, str]], stage: Stage) -> dict[str, str]:
    """Return an example's prompt behind more harmless sentences than the generator reads.

    The edge model answers it right with the prompt in context, as the fallback does.
    """
    limit = stage.generator.max_prompt_tokens
    for attempt in range(_CANDIDATES):
        rng = Random(f"fallback/{attempt}")
        example = examples[attempt % len(examples)]
        sentences = [example["system_prompt"]]
        while stage.generator.prompt_tokens(" ".join(sentences)) <= limit:
            sentences.insert(0, rng.choice(stage.show.catalogue.sentences))
        prompt = " ".join(sentences)
        if stage.prompted_answer(prompt, example["question"]) == example["answer"]:
            return {**example, "system_prompt": prompt, "reason": "prompt_too_long"}
    raise RuntimeError("no long prompt is answered in context: train again")
