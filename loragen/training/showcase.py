"""Showcase: the prompts that `make demo` shows, and the model card.

A prompt is shown only if it is not in training, the recipe's greedy answer is right, and the gate
lets it serve.
"""

import json
from random import Random
from typing import Final

from transformers import AutoTokenizer

from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.method.refine import RefineSpec
from loragen.recipe import Level
from loragen.suite.demo import DEMO, SURROUNDINGS
from loragen.suite.family import Family
from loragen.suite.identities import SIGNOFF
from loragen.suite.labels import SENTIMENT
from loragen.suite.rewrites import JSON, START
from loragen.suite.splits import Split
from loragen.training.batches import Renderer
from loragen.training.checkpoint import Layout
from loragen.training.gate_evaluation import load_refiner
from loragen.training.gated import DEMO_GATE, choose

SHOWN: Final = (SIGNOFF, SENTIMENT, JSON)
MENDED: Final = START
"""Of this family one pass gets held-out wordings wrong that the model follows without doubt."""
_CANDIDATES: Final = 200

_CARD: Final = """\
# LoRA-Gen demo checkpoint

A small edge model that follows system prompts, and generators that compile such prompts into
recipes for it. It shows the mechanism at a size that trains on two CPU cores; it is no general
assistant.

| folder | what |
|---|---|
| `edge/` | edge model, stock Llama architecture, float32 |
| `generator/`, `cloud/` | shipped generator (L1: 64 rank-1 experts, signed gates per linear) |
| `generator_l0/`, `cloud_l0/` | the paper's generator (L0: 8 experts of rank 16, top 2) |
| `multitask_lora.safetensors` | control: one LoRA for all prompts |
| `prompts.json` | prompts outside the training set, checked by greedy generation |

- **Data.** Only text produced by `loragen.suite`, written for this project. No third-party data,
  no pretrained weights, no personal data: names and companies are made up.
- **Training.** `python -m loragen.training checkpoint --out checkpoints/demo --seed {seed}`
  (`make demo-checkpoint`), described in `docs/training.md`.
- **Figures.** `bench/results/demo_eval.json`, written by `make eval-demo`.
- **Limits.** It knows about 500 English words and the rule families of the suite. Rules of other
  kinds are not followed, with the prompt in context or with a recipe; among them rules that choose
  between two free words ("say amber if it is good, coral if it is bad"). Training prompts have
  up to about 200 tokens; far longer ones are followed less often.
- **Licence.** Apache-2.0.
"""


def write_card(layout: Layout, seed: int) -> None:
    """Write `MODEL_CARD.md`."""
    (layout.root / "MODEL_CARD.md").write_text(_CARD.format(seed=seed), encoding="utf-8")


def write_prompts(layout: Layout) -> None:
    """Write `prompts.json`: three that work, one that needs refining, one too long to compile."""
    stage = Stage(layout)
    works = [_find_working(family, stage) for family in SHOWN]
    fields = {
        "works": works,
        "refined": _find_refined(stage),
        "fallback": _find_too_long(works, stage),
    }
    layout.prompts.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")


class Stage:
    """The shipped generator and the edge model, asked as a client would ask them."""

    def __init__(self, layout: Layout) -> None:
        pool = Pool.load(layout.generator(Level.DENSE) / "pool.safetensors")
        self.generator = Generator.load(layout.generator(Level.DENSE))
        self._edge = EdgeModel.load(layout.edge, pool)
        self._renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))
        self._refiner = load_refiner(layout, RefineSpec())

    def mended_answer(self, prompt: str, question: str) -> str | None:
        """Answer under a prompt's refined recipe, if its first is worth too little and this is not.

        As the router service would find it, which draws the same probes.
        """
        (recipe,) = self.generator.compile([prompt])
        choice = choose(self._refiner, prompt, recipe, DEMO_GATE)
        if choice.recipe is None or choice.second is None:
            return None
        gates = stack_gates([choice.recipe], self.generator.head.pool_id, self.generator.pool)
        chat = [{"role": "user", "content": question}]
        return self._decode(self._edge.generate(self._ids([chat]), gates))[0]

    def passes(self, prompt: str) -> bool:
        """Whether a prompt's first recipe serves it."""
        (recipe,) = self.generator.compile([prompt])
        choice = choose(self._refiner, prompt, recipe, DEMO_GATE)
        return choice.recipe is not None and choice.second is None

    def compiled_answers(self, prompt: str, questions: list[str]) -> list[str]:
        """Answer under the prompt's recipe."""
        recipes = self.generator.compile([prompt]) * len(questions)
        gates = stack_gates(recipes, self.generator.head.pool_id, self.generator.pool)
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


def _find_working(family: Family, stage: Stage) -> dict[str, str]:
    """Return the first short unseen prompt of a family whose recipe answers four questions."""
    for index in range(_CANDIDATES):
        prompt = DEMO.draw(family, Split.UNSEEN_PROMPTS, index)
        if not 60 <= len(prompt.text) <= 140:
            continue
        turns = [prompt.ask(Random(f"show/{index}/{k}")) for k in range(4)]
        answers = stage.compiled_answers(prompt.text, [turn.question for turn in turns])
        if answers == [turn.answer for turn in turns] and stage.passes(prompt.text):
            return {
                "system_prompt": prompt.text,
                "question": turns[0].question,
                "answer": turns[0].answer,
            }
    raise RuntimeError(f"no prompt of family {family.name} works: train again")


def _find_refined(stage: Stage) -> dict[str, str]:
    """Return a prompt in unseen wording whose recipe is not good enough until it is refined."""
    for index in range(2 * _CANDIDATES):
        prompt = DEMO.draw(MENDED, Split.UNSEEN_WORDINGS, index)
        turn = prompt.ask(Random(f"show/{index}"))
        is_followed = stage.prompted_answer(prompt.text, turn.question) == turn.answer
        if is_followed and stage.mended_answer(prompt.text, turn.question) == turn.answer:
            return {
                "system_prompt": prompt.text,
                "question": turn.question,
                "answer": turn.answer,
            }
    raise RuntimeError("no prompt needs refining")


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
            sentences.insert(0, rng.choice(SURROUNDINGS))
        prompt = " ".join(sentences)
        if stage.prompted_answer(prompt, example["question"]) == example["answer"]:
            return {**example, "system_prompt": prompt, "reason": "prompt_too_long"}
    raise RuntimeError("no long prompt is answered in context: train again")
