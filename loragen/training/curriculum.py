"""Curriculum: the order in which a model learns to look things up, then to read prompts.

Tables of few words come first, then more words, then text; in any other order text wins and answers
become some value of the table rather than the right one (`docs/LOG.md`). A phase ends after its
steps, or as soon as the drill is right often enough.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

FIRST_WORDS: Final = 32
_WINDOW: Final = 12
"""Drill batches over which accuracy is averaged."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of the curriculum.

    `style` is the hardest drill style, by its place in the run's list; three batches in ten hold an
    easier one.
    """

    name: str
    style: int
    steps: int
    """At most."""
    until: float = 1.0
    """Ends the phase when the mean accuracy of the hardest style exceeds it."""
    grows: bool = False
    """Doubles the drill's words whenever it is right 70 % of the time; ends with the last word."""
    text_share: float = 0.0
    """Share of batches that hold suite text."""
    short_share: float = 0.0
    """Share of text rows whose prompt is its rule alone."""
    binding_share: float = 0.0
    """Share of text rows from families that bind values to keys alone."""
    bindings: tuple[str, ...] = ()
    """Names of those families; all that bind if empty."""
    most_rows: int | None = None
    """Most rows of a table of text; any number if None."""
    matrix_lr: float = 0.01
    other_lr: float = 6e-3
    decays: bool = False
    """Lowers the learning rates to nothing over the phase."""
    is_frozen: bool = False
    """Leaves a generator's cloud model as it is, and trains only what reads its states."""
    is_kept: bool = False
    """The published model is the mean of the weights that such phases end with."""
    takes_mean: bool = False
    """Begins with the mean of the weights that were kept so far, and keeps them no longer."""

    def factor(self, step: int) -> float:
        """Return the factor on the learning rates at a step of the phase."""
        return max(0.03, 1 - step / self.steps) if self.decays else 1.0


def _early(name: str, style: int, steps: int, **settings: Any) -> Phase:
    """Return a phase of the first words, learnt at higher rates."""
    return Phase(name, style, steps, matrix_lr=0.02, other_lr=3e-3, **settings)


def _cooldown(name: str, steps: int, **settings: Any) -> Phase:
    """Return a phase that ends in a model of use."""
    return Phase(name, style=4, steps=steps, decays=True, is_kept=True, **settings)


def _late(name: str, steps: int, **settings: Any) -> Phase:
    """Return a phase of text that leaves most of what is known as it is."""
    return Phase(
        name, style=4, steps=steps, text_share=0.95, matrix_lr=5e-3, other_lr=3e-3, **settings
    )


_HARDEST: Final = ("areas", "scope", "tools")
_TABLES: Final = ("routes", "glossary", "directory", "tools", "keyed", "wrapped", "opened", "ended")

PHASES: Final = (
    _early("pairs", style=0, steps=800, until=0.9),
    _early("turns", style=1, steps=800, until=0.9),
    _early("links", style=2, steps=800, until=0.9),
    _early("rows", style=3, steps=300, decays=True),
    Phase("words", style=2, steps=3000, grows=True),
    Phase("widen", style=4, steps=80, text_share=0.35, short_share=1.0),
    Phase("rules", style=4, steps=1200, text_share=0.8, short_share=1.0, binding_share=0.5),
    Phase("prompts", style=4, steps=1300, text_share=0.85, short_share=0.4, binding_share=0.2),
    Phase(
        "cooldown", style=4, steps=600, text_share=0.9, short_share=0.3, decays=True, is_kept=True
    ),
    Phase("again", style=4, steps=300, text_share=0.9, short_share=0.2, binding_share=0.2),
    _cooldown("end", steps=500, text_share=0.95, short_share=0.2),
    # What a message is about, for two areas that the prompt names, is learnt only where most rows
    # ask it; "this area, or all else" and the third look-up of a tool call follow from it.
    _late("areas", 200, short_share=0.8, binding_share=0.8, bindings=("areas",), takes_mean=True),
    _late("areas or not", 250, short_share=0.4, binding_share=0.6, bindings=_HARDEST),
    _late("settled", 450, short_share=0.2, binding_share=0.2, decays=True, is_kept=True),
    # Tables lose by it what they get back here.
    _late(
        "tables",
        700,
        short_share=0.2,
        binding_share=0.4,
        bindings=_TABLES,
        decays=True,
        is_kept=True,
    ),
    # Whether a name stands before or after what it is for is told by its bracket alone.
    _late("tools", 250, short_share=0.8, binding_share=0.8, bindings=("tools",), takes_mean=True),
    _late("tools and all", 250, short_share=0.3, binding_share=0.2, decays=True, is_kept=True),
)


@dataclass(slots=True)
class Position:
    """Where training stands: a checkpoint holds it beside the weights."""

    phases: tuple[Phase, ...] = PHASES
    index: int = 0
    step: int = 0
    """Steps of the phase that are done."""
    total: int = 0
    """Steps of all phases that are done."""
    texts: int = 0
    """Text batches of the phase that are done."""
    words: int = FIRST_WORDS
    """Words that drill tables hold."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    """Accuracies of the last drill batches of the phase's hardest style."""

    @property
    def phase(self) -> Phase | None:
        """The phase in progress, or None after the last."""
        return self.phases[self.index] if self.index < len(self.phases) else None

    @property
    def accuracy(self) -> float:
        """Mean accuracy of the recent drill batches, 0 while there are too few."""
        return sum(self.recent) / _WINDOW if len(self.recent) == _WINDOW else 0.0

    def advance(self, *, accuracy: float | None, is_text: bool, vocabulary: int) -> bool:
        """Count a step and return whether it ended the phase.

        `accuracy` is that of a drill batch of the hardest style, None for any other batch;
        `vocabulary` counts the words that the drill has.
        """
        phase = self.phase
        assert phase is not None
        self.step += 1
        self.total += 1
        self.texts += is_text
        if accuracy is not None:
            self.recent.append(accuracy)
        is_over = self.accuracy > phase.until
        if phase.grows and self.accuracy > 0.7:
            is_over = self.words >= vocabulary
            self.words = min(2 * self.words, vocabulary)
            self.recent.clear()
        if not is_over and self.step < phase.steps:
            return False
        if phase.grows:
            self.words = vocabulary
        self.index, self.step, self.texts = self.index + 1, 0, 0
        self.recent.clear()
        return True

    def to_state(self) -> dict[str, Any]:
        """Return the position as plain values."""
        return {
            "index": self.index,
            "step": self.step,
            "total": self.total,
            "texts": self.texts,
            "words": self.words,
            "recent": list(self.recent),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a position from `to_state`."""
        self.index, self.step, self.total = state["index"], state["step"], state["total"]
        self.texts, self.words = state["texts"], state["words"]
        self.recent.clear()
        self.recent.extend(state["recent"])
