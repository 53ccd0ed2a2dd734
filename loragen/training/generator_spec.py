"""Generator spec: what a generator run trains, and for how long."""

from dataclasses import dataclass, replace
from typing import Any, Final

from loragen.recipe import Level
from loragen.suite.small import SMALL
from loragen.suite.splits import Catalogue
from loragen.suite.tenants import TENANTS
from loragen.training.curriculum import Phase
from loragen.training.growth import CloudSize

BALANCE_ALPHA: Final = 0.01


@dataclass(frozen=True, slots=True)
class GeneratorRunSpec:
    """Recipe level, pool shape, cloud model and curriculum."""

    level: Level
    experts: int
    rank: int
    phases: tuple[Phase, ...]
    catalogue: Catalogue = SMALL
    rows: int = 32
    """Prompts of one step."""
    segments: int = 6
    """Questions of one prompt."""
    course: str = "text"
    """What a position is of: a generator may go through several courses."""
    cloud: CloudSize | None = None
    """None: as large as the edge model."""
    top_k: int = 2
    binds: bool = False
    """Whether the router has a binder."""
    pair_experts: int = 0
    """Experts of the pair course, where it comes after that; see `pair_course`."""
    matrix_decay: float = 0.0
    pool_lr: float = 5e-3
    router_lr: float = 1.5e-3
    pair_lr: float = 2e-4
    balance: float = BALANCE_ALPHA
    """Weight of the balance term in L0; without it the router may keep the same experts always."""


def _text(steps: int) -> tuple[Phase, ...]:
    flat = round(0.4 * steps)
    return (
        Phase("text", 0, flat, text_share=1.0),
        Phase("cooldown", 0, steps - flat, text_share=1.0, decays=True),
    )


DENSE: Final = GeneratorRunSpec(Level.DENSE, experts=64, rank=1, phases=_text(800))
PAPER: Final = GeneratorRunSpec(Level.PAPER, experts=8, rank=16, phases=_text(1000))
TENANTS_DENSE: Final = GeneratorRunSpec(
    Level.DENSE,
    experts=64,
    rank=1,
    phases=(
        Phase("rules", 3, 1400, text_share=1.0, short_share=1.0),
        Phase("prompts", 3, 1300, text_share=1.0, short_share=0.3),
        Phase("cooldown", 3, 400, text_share=1.0, short_share=0.2, decays=True),
    ),
    catalogue=TENANTS,
    binds=True,
    matrix_decay=0.1,
)


def _joint(name: str, steps: int, **settings: Any) -> Phase:
    return Phase(
        name,
        style=3,
        steps=steps,
        text_share=1.0,
        matrix_lr=4e-3,
        **settings,
    )


TENANTS_TOGETHER: Final = replace(
    TENANTS_DENSE,
    course="together",
    pair_experts=128,
    phases=(
        _joint("together", 550, short_share=0.3, binding_share=0.3),
        _joint("end", 350, short_share=0.2, binding_share=0.2, decays=True),
    ),
    pool_lr=2e-3,
    router_lr=5e-4,
)
"""What comes after the pair course: all that it added, and all that was there, on text."""
