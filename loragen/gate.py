"""Gate: whether a measured recipe serves its task, or the prompt stays in context.

The one rule of the gateway, of the evaluations and of the showcase.
"""

from dataclasses import dataclass
from typing import Final, Literal

Refusal = Literal["model_unsure", "prompt_has_no_effect", "low_fidelity"]

MIN_FIDELITY: Final = 0.8
"""What a task asks of its recipe that does not say otherwise."""
REFINE_FROM: Final = 0.05
"""Where a recipe begins to be of some use."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a recipe must be worth, and how unsure the edge model may be of what it recovers.

    A `min_fidelity` of 0 lets everything pass; a `max_doubt` of None asks nothing of doubt, which
    is in nats per token. `min_agreement` is the least share of answers that are the prompt's word
    for word: one wrong token of an answer costs little fidelity, and all of its use. A recipe that
    passes is still refined where its agreement is less than `refine_below_agreement`. One whose
    fidelity is less than `refine_from_fidelity`, on messages that the model made up, is not: its
    generator misread the prompt, as it does with kinds that neither model learnt. From
    `trust_from_fidelity` on doubt is not asked for: a generator recovers so much of kinds that it
    learnt, as did the edge model, however odd the messages are that this made up.
    """

    min_fidelity: float = MIN_FIDELITY
    max_doubt: float | None = None
    min_agreement: float = 0.0
    refine_below_agreement: float = 0.0
    refine_from_fidelity: float = REFINE_FROM
    trust_from_fidelity: float | None = None

    def refusal(
        self, fidelity: float | None, doubt: float | None, agreement: float | None
    ) -> Refusal | None:
        """Return why a recipe of this worth does not serve, None where it does.

        Fidelity is None where the prompt has no effect. Doubt and agreement are None where nobody
        found them: in records and replies older than they; doubt also where every probe brought
        its answer.
        """
        if self.min_fidelity <= 0:
            return None
        # First: fidelity to a prompt that the model does not follow tells nothing.
        if self._is_doubted(fidelity, doubt):
            return "model_unsure"
        if fidelity is None:
            return "prompt_has_no_effect"
        agrees = agreement is None or agreement >= self.min_agreement
        return None if fidelity >= self.min_fidelity and agrees else "low_fidelity"

    def _is_doubted(self, fidelity: float | None, doubt: float | None) -> bool:
        if self.max_doubt is None or doubt is None or doubt <= self.max_doubt:
            return False
        trusted = self.trust_from_fidelity
        return trusted is None or fidelity is None or fidelity < trusted

    def is_to_be_refined(
        self,
        fidelity: float | None,
        doubt: float | None,
        agreement: float | None,
        *,
        is_made_up: bool = True,
    ) -> bool:
        """Whether a server refines by itself what was measured so, be it served or not.

        `is_made_up` tells messages of the model's own from those of clients, on which any recipe
        is worth fitting.
        """
        refusal = self.refusal(fidelity, doubt, agreement)
        if self.min_fidelity <= 0 or fidelity is None or refusal not in (None, "low_fidelity"):
            return False
        is_enough = agreement is None or agreement >= self.refine_below_agreement
        if refusal is None and is_enough:
            return False
        return fidelity >= self.refine_from_fidelity or not is_made_up
