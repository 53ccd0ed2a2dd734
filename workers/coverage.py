"""Coverage: does the gate backend mix recipes into all that a pool is for, in one edge model?

Decided before vLLM starts, from the names of the model's weights, by which `workers.layers` knows
the linears too. Should vLLM build the model of other modules than its weights say, that installer
refuses it, and the operator asks for the materialise backend.
"""

import re
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from config.edge_model import Backend
from loragen.errors import ArtifactCorrupt, ConfigError
from loragen.method.pool import PoolSpec

GATE_LINEARS: Final = ("gate", "up", "down")
"""The linears of an FFN that the gate backend mixes, in the order of a pool's."""

_WEIGHT: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.mlp\.(gate|up|down)_proj\.\w*weight\w*$")
"""Quantised weights have names of their own: qweight, weight_packed, weight_scale."""


def choose_backend(wanted: Backend, pool: PoolSpec, model: Path) -> Backend:
    """Return the backend for a pool's recipes: the wanted one, or gate where it covers the model.

    Raises:
        ConfigError: gate is wanted and does not cover the model.
        ArtifactCorrupt: the model's weights cannot be read.
    """
    if wanted == "materialise":
        return "materialise"
    if is_covered(pool, model):
        return "gate"
    if wanted == "auto":
        return "materialise"
    raise ConfigError(
        f"the gate backend mixes recipes into {', '.join(GATE_LINEARS)} under mlp in every layer; "
        f"the pool is for {', '.join(pool.linears)}, or {model} has other layers: set backend to "
        "auto or materialise"
    )


def is_covered(pool: PoolSpec, model: Path) -> bool:
    """Whether the FFN linears of the model are those of the pool, layer by layer.

    Raises:
        ArtifactCorrupt: the model's weights cannot be read.
    """
    ordered = tuple(linear for linear in GATE_LINEARS if linear in pool.linears)
    expected = {(layer, linear) for layer in range(pool.layers) for linear in pool.linears}
    return ordered == pool.linears and _ffn_linears(model) == expected


def _ffn_linears(model: Path) -> set[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    for path in sorted(model.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                names = list(file.keys())
        except (OSError, SafetensorError) as error:
            raise ArtifactCorrupt(f"cannot read {path}: {error}") from error
        matches = filter(None, map(_WEIGHT.search, names))
        found.update((int(match[1]), match[2]) for match in matches)
    return found
