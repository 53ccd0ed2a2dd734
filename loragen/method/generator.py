"""Generator: compiles prompts into recipes.

    prompt --tokenizer--> <prefix> prompt <suffix> <meta_1> .. <meta_L>
           --cloud model, one causal pass--> meta states [L, D]
           --router--> gates --int8--> recipe

and, if the router has a binder, the states of the prompt's tokens --binder--> sums into the router;
if the pool has pair experts, the edge model's states --pair reader--> their gates.

A checkpoint is a folder: `config.json` (format, relative paths of cloud and edge model, context,
prefix, suffix, router), `generator.safetensors` (meta embeddings, router, binder and pair reader if
any) and `pool.safetensors`.

A recipe is content-addressed, so the same prompt must give the same bytes in whatever batch it
came. Matrix products round differently in other shapes; hence every prompt is read alone.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from loragen.errors import ArtifactCorrupt, PromptTooLong
from loragen.method.pool import Pool, PoolSpec, edge_fingerprint, file_digest
from loragen.method.reader import Reader
from loragen.method.router import RouterSpec
from loragen.recipe import Level, Recipe

FORMAT: Final = "loragen-generator/1"


@dataclass(frozen=True, slots=True)
class GeneratorSpec:
    """The `config.json` of a generator. Paths are relative to its folder."""

    cloud: str
    edge: str
    context: int
    prefix: str
    suffix: str
    router: RouterSpec

    def to_json(self) -> str:
        """Return the text of `config.json`."""
        fields = {
            "format": FORMAT,
            "cloud": self.cloud,
            "edge": self.edge,
            "context": self.context,
            "prefix": self.prefix,
            "suffix": self.suffix,
            "router": self.router.to_config(),
        }
        return json.dumps(fields, indent=2) + "\n"

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `config.json`.

        Raises:
            ArtifactCorrupt: missing, not JSON, or not of this format.
        """
        try:
            fields: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
            if fields.pop("format") != FORMAT:
                raise ArtifactCorrupt(f"{folder} is not a generator of format {FORMAT}")
            return cls(**{**fields, "router": RouterSpec.from_config(fields["router"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactCorrupt(f"cannot read generator {folder}: {error}") from error


@dataclass(frozen=True, slots=True)
class Head:
    """What a recipe of this generator is for; part of every recipe key."""

    generator_id: str
    pool_id: str
    edge_fingerprint: str
    template_hash: str
    level: Level


class Generator:
    """Compiles prompts. Load once, keep; not thread-safe in training mode, pure in use.

    Attributes:
        head: what its recipes are for, and its own id.
        pool: shape of the pool that its recipes mix.
        reader: what it compiles with.
        max_prompt_tokens: the longest prompt it reads.
    """

    def __init__(
        self,
        reader: Reader,
        tokenizer: PreTrainedTokenizerBase,
        spec: GeneratorSpec,
        *,
        head: Head,
        pool: PoolSpec,
    ) -> None:
        self.head = head
        self.pool = pool
        self.reader = reader.eval()
        self._tokenizer = tokenizer
        self._spec = spec
        self.max_prompt_tokens = spec.context - spec.router.layers - self._wrapped_tokens("")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a generator checkpoint with its cloud model.

        Raises:
            ArtifactCorrupt: a file is missing, unreadable or does not fit the others.
        """
        spec = GeneratorSpec.load(folder)
        cloud_folder, edge_folder = folder / spec.cloud, folder / spec.edge
        pool = Pool.load(folder / "pool.safetensors")
        _check_fit(spec.router, pool.spec)
        if edge_folder.exists() and edge_fingerprint(edge_folder) != pool.spec.edge_fingerprint:
            raise ArtifactCorrupt(f"pool of {folder} was trained for another edge model")
        try:
            cloud = AutoModel.from_pretrained(cloud_folder, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(cloud_folder, mistral_format=False)
            edge = None
            if spec.router.pair_experts:
                if not (edge_folder / "config.json").is_file():
                    raise ArtifactCorrupt(f"{folder} reads pairs, and {edge_folder} is not there")
                edge = _load_decoder(edge_folder)
            reader = Reader(cloud, spec.router, edge)
            tensors = load_file(folder / "generator.safetensors")
            _load_own(reader, tensors)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ArtifactCorrupt(f"cannot load generator {folder}: {error}") from error
        head = Head(
            generator_id=generator_id(folder, cloud_folder),
            pool_id=pool.id,
            edge_fingerprint=pool.spec.edge_fingerprint,
            template_hash=pool.spec.template_hash,
            level=spec.router.level,
        )
        return cls(reader, tokenizer, spec, head=head, pool=pool.spec)

    def prompt_tokens(self, prompt: str) -> int:
        """Return how many tokens of `max_prompt_tokens` a prompt takes."""
        return self._wrapped_tokens(prompt) - self._wrapped_tokens("")

    def compile(self, prompts: Sequence[str]) -> list[Recipe]:
        """Return one recipe per prompt; the same prompt gives the same bytes in any batch.

        Raises:
            PromptTooLong: a prompt exceeds `max_prompt_tokens`; nothing is compiled then.
        """
        rows = [self._encode(prompt) for prompt in prompts]
        return [self._compile_one(ids) for ids in rows]

    @torch.inference_mode()
    def _compile_one(self, ids: list[int]) -> Recipe:
        ids_1P = torch.tensor([ids])
        gates_1LMN = self.reader(ids_1P, torch.ones_like(ids_1P, dtype=torch.bool))
        return Recipe.encode(
            gates_1LMN[0].numpy(), pool_id=self.head.pool_id, level=self.head.level
        )

    def _encode(self, prompt: str) -> list[int]:
        ids = self._tokenize(prompt)
        if len(ids) + self._spec.router.layers > self._spec.context:
            raise PromptTooLong(
                f"the prompt has {self.prompt_tokens(prompt)} tokens, the generator reads at most "
                f"{self.max_prompt_tokens}",
                param="system_prompt",
            )
        return ids

    def _wrapped_tokens(self, prompt: str) -> int:
        return len(self._tokenize(prompt))

    def _tokenize(self, prompt: str) -> list[int]:
        text = f"{self._spec.prefix}{prompt}{self._spec.suffix}"
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def save_generator(
    folder: Path, reader: Reader, spec: GeneratorSpec, pool: PoolSpec, experts: Any
) -> None:
    """Write a generator folder, all but the cloud model; matrices in float16.

    It takes the place of one that is there as a whole, so no folder holds parts of two.
    """
    mend_generator(folder)
    partial, old = _beside(folder)
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {
        # Statistics of norms may be beyond what float16 holds.
        name: (t.detach().half() if t.ndim == 2 else t.detach()).contiguous()
        for name, t in reader.own_tensors().items()
    }
    save_file(tensors, partial / "generator.safetensors")
    Pool.save(partial / "pool.safetensors", pool, experts)
    (partial / "config.json").write_text(spec.to_json(), encoding="utf-8")
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def mend_generator(folder: Path) -> None:
    """Put back what was there, where `save_generator` was cut off between its two renames."""
    _, old = _beside(folder)
    if old.exists() and not folder.exists():
        old.rename(folder)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Return where a generator is written, and where the last one is kept meanwhile."""
    return folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")


def generator_id(folder: Path, cloud_folder: Path) -> str:
    """Return the hex sha256 over every file that decides a recipe."""
    files = [*sorted(folder.glob("*")), *sorted(cloud_folder.glob("*"))]
    digest = hashlib.sha256()
    for file in files:
        if file.suffix in (".json", ".safetensors"):
            digest.update(f"{file.name}:{file_digest(file)}\n".encode())
    return digest.hexdigest()


def _load_own(reader: Reader, tensors: dict[str, torch.Tensor]) -> None:
    expected = set(reader.own_tensors())
    if set(tensors) != expected:
        raise ArtifactCorrupt(f"generator.safetensors lacks or adds {expected ^ set(tensors)}")
    reader.load_state_dict(tensors, strict=False)


def _check_fit(router: RouterSpec, pool: PoolSpec) -> None:
    shape = (router.layers, router.linears, router.pool_experts)
    if shape != (pool.layers, len(pool.linears), pool.experts):
        raise ArtifactCorrupt(f"the router gates {shape}, the pool is {pool}")


def _load_decoder(folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    decoder: PreTrainedModel = model.get_decoder()
    return decoder
