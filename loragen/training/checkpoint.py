"""Checkpoint: the folder that training writes and everything else reads.

    edge/              Hugging Face folder of the edge model, float32, with its compiled template
    cloud/ generator/  generator, L1
    cloud_l0/ generator_l0/   the paper's, L0; not in every checkpoint
    multitask_lora.safetensors   control, stored as a pool of one expert
    prompts.json       prompts to show, checked by greedy generation

Cloud models and generators are stored in float16 and widened on load: recipes are always those of
the rounded weights.
"""

import copy
import json
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from loragen.errors import ConfigError
from loragen.method.generator import (
    Generator,
    GeneratorSpec,
    mend_generator,
    save_generator,
)
from loragen.method.pool import Pool, PoolSpec, edge_fingerprint
from loragen.method.reader import Reader
from loragen.recipe import Level
from loragen.suite.small import SMALL
from loragen.suite.splits import Catalogue
from loragen.template import FILE_NAME, CompiledTemplate
from loragen.training.fit import LINEARS, TrainablePool, fit_multitask
from loragen.training.generator_run import GeneratorRun
from loragen.training.generator_spec import GeneratorRunSpec
from loragen.training.pair_course import PairCourse, PairSpec, Taught
from loragen.training.pretrain import EdgeSpec, pretrain
from loragen.training.tokenizer import (
    BOS,
    COMPILED_TEMPLATE,
    END,
    SYSTEM,
    train_tokenizer,
)

logger = logging.getLogger(__name__)

VOCAB_SIZE: Final = 2048
GENERATOR_CONTEXT: Final = 512
MULTITASK_RANK: Final = 16
MULTITASK_STEPS: Final = 200


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths inside a checkpoint folder."""

    root: Path

    @property
    def edge(self) -> Path:
        """Edge model."""
        return self.root / "edge"

    @property
    def multitask(self) -> Path:
        """Control adapter."""
        return self.root / "multitask_lora.safetensors"

    @property
    def prompts(self) -> Path:
        """Prompts to show."""
        return self.root / "prompts.json"

    def generator(self, level: Level) -> Path:
        """Generator of a level."""
        return self.root / ("generator" if level is Level.DENSE else "generator_l0")

    def state(self, level: Level) -> Path:
        """Checkpoint of a generator run that is not over; its folder is made by the edge stage."""
        return self.root / f"{self.generator(level).name}.pt"

    def position(self, level: Level) -> Path:
        """Where a generator run stands that is not over: enough to go on without its state."""
        return self.root / f"{self.generator(level).name}_position.json"

    @property
    def pairs_state(self) -> Path:
        """Checkpoint of a pair course that is not over."""
        return self.root / "pairs.pt"

    def cloud(self, level: Level) -> Path:
        """Cloud model of a level."""
        return self.root / ("cloud" if level is Level.DENSE else "cloud_l0")


def train_edge(layout: Layout, spec: EdgeSpec, seed: int) -> None:
    """Train tokenizer and edge model, and write `edge/`."""
    tokenizer = train_tokenizer(SMALL, VOCAB_SIZE, seed)
    logger.info("tokenizer: %d tokens", len(tokenizer))
    model = pretrain(tokenizer, spec, seed)
    model.generation_config.do_sample = False
    model.save_pretrained(layout.edge)
    save_tokenizer(tokenizer, layout.edge)
    (layout.edge / FILE_NAME).write_text(COMPILED_TEMPLATE, "utf-8")


def train_generator(
    layout: Layout, spec: GeneratorRunSpec, seed: int, *, seconds: float = math.inf
) -> bool:
    """Train a generator for `edge/`, write its two folders, and return whether it is done.

    It goes on from where an earlier process stopped. Without that one's state, which is not for
    publishing, it goes on from the folders and the position, with an optimiser that warms up again.
    A run with pair experts begins with the weights that the pair course left; one that is over
    changes nothing.

    Raises:
        ConfigError: it has been through the pair course and this run is a text course, or has not
            and this run comes after it.
    """
    _require_pairs(layout.generator(spec.level), spec.pair_experts)
    edge, tokenizer = _load_edge(layout)
    state, position = layout.state(spec.level), layout.position(spec.level)
    run = GeneratorRun(edge, tokenizer, spec, seed, state)
    stands = json.loads(position.read_text("utf-8")) if position.exists() else {}
    is_of_this = stands.pop("course", "text") == spec.course
    if ((stands and is_of_this) or spec.pair_experts) and not state.exists():
        generator = Generator.load(layout.generator(spec.level))
        pool = Pool.load(layout.generator(spec.level) / "pool.safetensors")
        run.go_on_from(generator.reader, pool.tensors, stands if is_of_this else None)
        if run.is_over:
            return True
    is_over = run.train(seconds=seconds)
    _write_generator(layout, run, spec)
    partial = position.with_suffix(".partial")
    partial.write_text(
        json.dumps({"course": spec.course, **run.position.to_state()}) + "\n", "utf-8"
    )
    partial.replace(position)
    if is_over:
        state.unlink()
    return is_over


def train_pairs(layout: Layout, spec: PairSpec, seed: int) -> None:
    """Teach the generator of level 1 to read pairs, and write its folder again.

    It goes on at the stage in which an earlier process stopped, and does nothing once it is over.

    Raises:
        ConfigError: it has other pair experts already, or its text course is not over.
    """
    folder = layout.generator(Level.DENSE)
    if _pair_experts(folder) == spec.experts:
        layout.pairs_state.unlink(missing_ok=True)
        return
    _require_pairs(folder, 0)
    if layout.state(Level.DENSE).exists():
        raise ConfigError(f"the text course of {folder} is not over: run it to its end")
    edge, tokenizer = _load_edge(layout)
    taught = Taught(Generator.load(folder).reader, Pool.load(folder / "pool.safetensors"))
    course = PairCourse(edge, tokenizer, taught, spec, seed=seed, state=layout.pairs_state)
    course.train()
    _save_generator(layout, course.reader, course.pool, rank=1)
    layout.pairs_state.unlink()
    layout.position(Level.DENSE).unlink(missing_ok=True)  # the text course cannot go on from here


def _require_pairs(folder: Path, wanted: int) -> None:
    """Raise ConfigError unless a generator has so many pair experts; a new one has none."""
    found = _pair_experts(folder)
    if found != wanted:
        raise ConfigError(f"{folder} has {found} pair experts, this is for one with {wanted}")


def _pair_experts(folder: Path) -> int:
    """Return how many pair experts the generator in a folder has; 0 where there is none."""
    mend_generator(folder)
    return GeneratorSpec.load(folder).router.pair_experts if folder.exists() else 0


def _write_generator(layout: Layout, run: GeneratorRun, spec: GeneratorRunSpec) -> None:
    cloud = copy.deepcopy(run.reader.cloud).half()
    cloud.config.max_position_embeddings = GENERATOR_CONTEXT
    cloud_folder = layout.cloud(spec.level)
    cloud.save_pretrained(cloud_folder)
    save_tokenizer(run.tokenizer, cloud_folder)
    _save_generator(layout, run.reader, run.pool, rank=spec.rank)


def _save_generator(layout: Layout, reader: Reader, pool: TrainablePool, rank: int) -> None:
    router = reader.router.spec
    generator = GeneratorSpec(
        cloud=f"../{layout.cloud(router.level).name}",
        edge="../edge",
        context=GENERATOR_CONTEXT,
        prefix=f"{BOS}{SYSTEM}",
        suffix=END,
        router=router,
    )
    pool_spec = _pool_spec(layout, router.pool_experts, rank)
    save_generator(layout.generator(router.level), reader, generator, pool_spec, pool.experts())


def train_control(layout: Layout, catalogue: Catalogue, seed: int) -> None:
    """Train the multi-task LoRA for `edge/`, and write it."""
    edge, tokenizer = _load_edge(layout)
    pool = fit_multitask(
        edge, tokenizer, catalogue, rank=MULTITASK_RANK, steps=MULTITASK_STEPS, seed=seed
    )
    Pool.save(layout.multitask, _pool_spec(layout, 1, MULTITASK_RANK), pool.experts())


def _load_edge(layout: Layout) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    model = LlamaForCausalLM.from_pretrained(layout.edge, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(layout.edge)


def _pool_spec(layout: Layout, experts: int, rank: int) -> PoolSpec:
    config = json.loads((layout.edge / "config.json").read_text("utf-8"))
    return PoolSpec(
        layers=config["num_hidden_layers"],
        linears=LINEARS,
        experts=experts,
        rank=rank,
        edge_fingerprint=edge_fingerprint(layout.edge),
        template_hash=CompiledTemplate.load(layout.edge / FILE_NAME).hash,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer folder that transformers 4 and 5 read."""
    tokenizer.save_pretrained(folder)
    # transformers 5 writes a class name that transformers 4 does not know.
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text("utf-8"))
    fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
