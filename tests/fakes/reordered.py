"""Another checkpoint that says the same: its pool's experts, and its router's gates, in reverse.

A recipe of the one gates the wrong experts of the other, so that what is mixed from the wrong pool
is seen by its answer; while each, with its own recipes, answers as the other does.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

Change = Callable[[str, torch.Tensor], torch.Tensor]


def reordered(folder: Path, out: Path) -> Path:
    """Write the generator folder `out`, of the generator in `folder`, and return it."""
    out.mkdir(parents=True)
    config = json.loads((folder / "config.json").read_text())
    assert not config["router"].get("pair_experts"), "their gates would have to be reversed too"
    shape = config["router"]["linears"], config["router"]["experts"]
    for name in ("cloud", "edge"):
        config[name] = str((folder / config[name]).resolve())
    (out / "config.json").write_text(json.dumps(config))

    def reverse_gates(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if not name.startswith(("router.f2.", "router.norm.")) or tensor.ndim == 0:
            return tensor
        reversed_: torch.Tensor = tensor.unflatten(0, shape).flip(1).flatten(0, 1)
        return reversed_

    _rewrite(folder / "generator.safetensors", out, reverse_gates)
    _rewrite(folder / "pool.safetensors", out, _reverse_experts)
    return out


def _reverse_experts(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Reverse the experts of a pool of rank 1: columns of A, rows of B."""
    return tensor.flip(1 if name.endswith(".A") else 0)


def _rewrite(file: Path, out: Path, change: Change) -> None:
    with safe_open(file, framework="pt") as opened:
        metadata, names = opened.metadata(), opened.keys()
        tensors = {name: change(name, opened.get_tensor(name)).contiguous() for name in names}
    save_file(tensors, out / file.name, metadata=metadata)
