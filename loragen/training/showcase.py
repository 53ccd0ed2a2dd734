"""Showcase: the prompts that `make demo` shows, and the model card.

A prompt is shown only if it is not in training and the recipe's greedy answer is right.
"""

import json
from random import Random
from typing import Any, Final

from transformers import AutoTokenizer

from loragen.method.edge import EdgeModel
from loragen.method.gatespace import stack_gates
from loragen.method.generator import Generator
from loragen.method.pool import Pool
from loragen.recipe import Level
from loragen.suite.family import Family
from loragen.suite.identities import PERSONA
from loragen.suite.labels import SENTIMENT
from loragen.suite.rewrites import JSON
from loragen.suite.splits import SURROUNDINGS, Prompt, Split, draw
from loragen.training.batches import Renderer
from loragen.training.checkpoint import Layout

SHOWN: Final = (PERSONA, SENTIMENT, JSON)
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
  kinds are not followed, with the prompt in context or with a recipe.
- **Licence.** Apache-2.0.
"""


def write_card(layout: Layout, seed: int) -> None:
    """Write `MODEL_CARD.md`."""
    (layout.root / "MODEL_CARD.md").write_text(_CARD.format(seed=seed), encoding="utf-8")


def write_prompts(layout: Layout) -> None:
    """Write `prompts.json`: three prompts that work, and one too long to compile."""
    pool = Pool.load(layout.generator(Level.DENSE) / "pool.safetensors")
    edge = EdgeModel.load(layout.edge, pool)
    generator = Generator.load(layout.generator(Level.DENSE))
    renderer = Renderer(AutoTokenizer.from_pretrained(layout.edge))
    works = [_find_working(family, edge, generator, renderer) for family in SHOWN]
    fields = {"works": works, "fallback": _too_long(generator, works[0])}
    layout.prompts.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _find_working(
    family: Family, edge: EdgeModel, generator: Generator, renderer: Renderer
) -> dict[str, str]:
    """Return the first short unseen prompt of a family whose recipe answers four questions."""
    for index in range(_CANDIDATES):
        prompt = draw(family, Split.UNSEEN_PROMPTS, index)
        if not 60 <= len(prompt.text) <= 140:
            continue
        turns = [prompt.ask(Random(f"show/{index}/{k}")) for k in range(4)]
        answers = _answers(prompt, [turn.question for turn in turns], edge, generator, renderer)
        if answers == [turn.answer for turn in turns]:
            return {
                "system_prompt": prompt.text,
                "question": turns[0].question,
                "answer": turns[0].answer,
            }
    raise RuntimeError(f"no prompt of family {family.name} works: train again")


def _answers(
    prompt: Prompt,
    questions: list[str],
    edge: EdgeModel,
    generator: Generator,
    renderer: Renderer,
) -> list[str]:
    tokenizer = renderer.tokenizer
    texts = [
        renderer.template.render([{"role": "user", "content": question}]) for question in questions
    ]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    pool = generator.pool
    recipes = generator.compile([prompt.text]) * len(questions)
    gates = stack_gates(recipes, generator.head.pool_id, pool)
    return [str(tokenizer.decode(answer)) for answer in edge.generate(ids, gates)]


def _too_long(generator: Generator, example: dict[str, Any]) -> dict[str, str]:
    """Return an example's prompt among more harmless sentences than the generator reads."""
    sentences = [example["system_prompt"]]
    rng = Random("fallback")
    while generator.prompt_tokens(" ".join(sentences)) <= generator.max_prompt_tokens + 20:
        sentences.append(rng.choice(SURROUNDINGS))
    return {**example, "system_prompt": " ".join(sentences), "reason": "prompt_too_long"}
