"""Pool: every expert of one edge model, in one immutable safetensors file.

Tensors `layers.{i}.{linear}.A` [D, R] and `layers.{i}.{linear}.B` [R, F] with R = experts * rank,
expert-major: columns e*rank .. (e+1)*rank of A and the same rows of B are expert e. A recipe's
gates g [R] give the task's update of the linear, y += ((x A) * g) B (paper Eq. 8 with whole outer
products mixed).

`pool_id` is the sha256 of the file's bytes. Never put a pool file into a model folder: vLLM loads
every safetensors file it finds there.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from loragen.errors import ArtifactCorrupt

Experts = Mapping[tuple[int, str], tuple[torch.Tensor, torch.Tensor]]
"""(A [D, R], B [R, F]) per layer and linear: all experts of one edge model."""

FORMAT: Final = "loragen-pool/1"
MAX_COLUMNS: Final = 256
"""Above this many columns per linear the dense batch product stops being cheap."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Shape of a pool, and what it was trained for."""

    layers: int
    linears: tuple[str, ...]
    experts: int
    rank: int
    edge_fingerprint: str
    template_hash: str

    @property
    def columns(self) -> int:
        """R: columns of A_all per linear."""
        return self.experts * self.rank

    def metadata(self) -> dict[str, str]:
        """Return the safetensors header fields of a pool of this shape."""
        return {
            "format": FORMAT,
            "layers": str(self.layers),
            "linears": ",".join(self.linears),
            "experts": str(self.experts),
            "rank": str(self.rank),
            "edge_fingerprint": self.edge_fingerprint,
            "template_hash": self.template_hash,
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str] | None) -> Self:
        """Read the safetensors header fields.

        Raises:
            ArtifactCorrupt: a field is missing or out of range.
        """
        try:
            fields = metadata or {}
            if fields["format"] != FORMAT:
                raise ArtifactCorrupt(f"pool format {fields['format']!r} is not {FORMAT!r}")
            spec = cls(
                layers=int(fields["layers"]),
                linears=tuple(fields["linears"].split(",")),
                experts=int(fields["experts"]),
                rank=int(fields["rank"]),
                edge_fingerprint=fields["edge_fingerprint"],
                template_hash=fields["template_hash"],
            )
        except (KeyError, ValueError) as error:
            raise ArtifactCorrupt(f"pool metadata is incomplete: {error}") from error
        if min(spec.layers, spec.experts, spec.rank) < 1 or spec.columns > MAX_COLUMNS:
            raise ArtifactCorrupt(f"pool shape is out of range: {spec}")
        return spec


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool in memory: (A [D, R], B [R, F]) per layer and linear."""

    id: str
    spec: PoolSpec
    tensors: Experts

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check a pool file.

        Raises:
            ArtifactCorrupt: missing, unreadable, or not the shape its metadata says.
        """
        try:
            with safe_open(path, framework="pt") as file:
                spec = PoolSpec.from_metadata(file.metadata())
                tensors = {
                    (layer, linear): (
                        file.get_tensor(f"layers.{layer}.{linear}.A"),
                        file.get_tensor(f"layers.{layer}.{linear}.B"),
                    )
                    for layer in range(spec.layers)
                    for linear in spec.linears
                }
            digest = file_digest(path)
        except (OSError, SafetensorError) as error:
            raise ArtifactCorrupt(f"cannot read pool {path}: {error}") from error
        for (layer, linear), (a_DR, b_RF) in tensors.items():
            if a_DR.shape[1] != spec.columns or b_RF.shape[0] != spec.columns:
                raise ArtifactCorrupt(f"pool {path}: layer {layer} {linear} has the wrong columns")
            if not (torch.isfinite(a_DR).all() and torch.isfinite(b_RF).all()):
                raise ArtifactCorrupt(f"pool {path}: layer {layer} {linear} is not finite")
        return cls(digest, spec, tensors)

    @staticmethod
    def save(path: Path, spec: PoolSpec, tensors: Experts) -> str:
        """Write a pool file and return its `pool_id`."""
        flat = {
            f"layers.{layer}.{linear}.{side}": tensor.detach().contiguous()
            for (layer, linear), pair in tensors.items()
            for side, tensor in zip("AB", pair, strict=True)
        }
        save_file(flat, path, metadata=spec.metadata())
        return file_digest(path)


def file_digest(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def edge_fingerprint(folder: Path) -> str:
    """Return the hex sha256 over an edge model's config, weights and tokenizer files.

    Raises:
        ArtifactCorrupt: the folder holds no `config.json` or no safetensors weights.
    """
    names = sorted(
        p.name
        for p in folder.glob("*")
        if p.suffix == ".safetensors" or p.name in ("config.json", "tokenizer.json")
    )
    if "config.json" not in names or not any(n.endswith(".safetensors") for n in names):
        raise ArtifactCorrupt(f"{folder} holds no config.json and safetensors weights")
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}:{file_digest(folder / name)}\n".encode())
    return digest.hexdigest()
