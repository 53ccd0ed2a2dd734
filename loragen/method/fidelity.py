"""Fidelity: how much of the full prompt's effect a recipe recovers, on probes.

F = 1 - (L_recipe - L_prompt) / (L_none - L_prompt), where each L is the mean over the prompt's own
answers of their negative log-likelihood per token: 0 without the prompt, 1 with it.

F compares with the prompt and cannot know whether the model follows that. Doubt tells: L_prompt of
the answers that the model gave itself. A model that knows what to say is sure of its greedy answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from loragen.method.edge import EdgeModel
from loragen.method.probes import Chat, Probe, answer_losses, answered, answers, batches

FLOOR_NATS: Final = 0.05
"""Least effect of a prompt, in nats per token, that a share of it can be measured of."""
_BEST: Final = 1.2
_WORSE: Final = -0.05
"""Below this a recipe does harm; between here and 0 it does nothing, give or take rounding."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """`score` is F within [0, 1.2], or None where the prompt has no effect on the probes.

    `agreement` is the share of probes whose greedy answer under the recipe is the prompt's.
    `does_harm` tells negative transfer: the recipe is further from the prompt than no prompt is.
    `doubt` is how unsure the model is under the prompt of its own answers, in nats per token, or
    None where every probe brought its answer.
    """

    score: float | None
    agreement: float
    does_harm: bool = False
    doubt: float | None = None


@torch.inference_mode()
def measure(edge: EdgeModel, probes: Sequence[Probe], gates_LMR: torch.Tensor) -> Fidelity:
    """Compare the edge model under a task's gates with itself under the task's prompt."""
    known = answered(edge, probes)
    wanted = [list(probe.answer or ()) for probe in known]
    bare = list(zip([probe.bare for probe in known], wanted, strict=True))
    prompted = list(zip([probe.prompted for probe in known], wanted, strict=True))
    prompted_B = _losses(edge, prompted)
    own_B = prompted_B[torch.tensor([probe.is_own for probe in known])]
    with_prompt = prompted_B.mean().item()
    without = _losses(edge, bare).mean().item()
    with_recipe = _losses(edge, bare, gates_LMR).mean().item()
    said = answers(
        edge, [probe.bare for probe in known], gates_LMR, max_tokens=max(map(len, wanted))
    )
    # An answer of the model's own may have been cut where another goes on.
    same = [own[: len(answer)] == answer for own, answer in zip(said, wanted, strict=True)]
    effect = without - with_prompt
    score = None if effect < FLOOR_NATS else 1 - (with_recipe - with_prompt) / effect
    return Fidelity(
        score=None if score is None else min(max(score, 0.0), _BEST),
        agreement=sum(same) / len(same),
        does_harm=score is not None and score < _WORSE,
        doubt=own_B.mean().item() if len(own_B) else None,
    )


@torch.inference_mode()
def doubt(edge: EdgeModel, probes: Sequence[Probe]) -> float | None:
    """Return how unsure the edge model is under the prompt of its own answers, as in `Fidelity`.

    The probes have their answers.
    """
    own = [(probe.prompted, probe.answer or ()) for probe in probes if probe.is_own]
    return _losses(edge, own).mean().item() if own else None


def _losses(
    edge: EdgeModel, chats: Sequence[Chat], gates_LMR: torch.Tensor | None = None
) -> torch.Tensor:
    """Return each answer's negative log-likelihood per token [B], all under the same gates."""
    losses: list[torch.Tensor] = []
    for rows in batches(edge, [len(question) + len(answer) for question, answer in chats]):
        gates = None if gates_LMR is None else gates_LMR.expand(len(rows), -1, -1, -1)
        losses.append(answer_losses(edge, [chats[row] for row in rows], gates))
    return torch.cat(losses)
