"""Refine: fit a task's gates, so that the edge model says under them what it says with the prompt.

The generator finds gates in one pass; this finds better ones in seconds, by gradient, from probes.
Nothing but gates is trained, so the result is a recipe like any other.

Tasks are fitted side by side, and independently: each has its own loss, its own draws and, Adam
being elementwise, its own steps.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import torch

from loragen.errors import DeadlineExceeded
from loragen.method.edge import EdgeModel
from loragen.method.probes import Chat, Probe, answer_losses, answered, are_said, batches

BOOTSTRAP_LR: Final = 0.1
"""The rate on a bootstrap pool: its gates begin at zero and have further to go than those of a
generator's."""


_LATER: Final = 0.6
"""On the rate of each further round: it begins nearer."""
_ENOUGH: Final = 0.95
"""Share of its probes' answers that a task is to say, or it is fitted further."""


@dataclass(frozen=True, slots=True)
class RefineSpec:
    """How long and how fast to fit, and on how many probes where a task brings none.

    The rate decays to nothing over the steps of a round. A task goes through another where more
    than one of twenty of its probes' answers is not what is said: seldom with the demo, perhaps
    always with a chat model whose answers are long. A round that made it worse is as if it had not
    been.
    """

    steps: int = 100
    rounds: int = 2
    lr: float = 0.05
    probes_per_step: int = 8
    max_answer_tokens: int = 64
    self_probes: int = 48
    measure_probes: int = 24


def refine(
    edge: EdgeModel,
    tasks: Sequence[Sequence[Probe]],
    start_BLMN: torch.Tensor,
    spec: RefineSpec,
    *,
    rank: int = 1,
    deadline: float = math.inf,
) -> torch.Tensor:
    """Return fitted gates [B, L, M, N] of tasks with these probes, starting from given gates.

    Each gate is that of an expert of `rank`. The edge model's weights must not ask for gradients.
    A further round begins only where it can be over by the deadline, of `time.monotonic()`.

    Raises:
        DeadlineExceeded: the first round was not.
    """
    started = time.monotonic()
    lessons = [
        [
            (probe.bare, probe.answer or ())
            for probe in answered(edge, probes, max_tokens=spec.max_answer_tokens)
        ]
        for probes in tasks
    ]
    gates_BLMN = _fitted(edge, lessons, start_BLMN.detach(), spec, spec.lr, rank, deadline)
    took = time.monotonic() - started
    said = [_said(edge, *each, rank) for each in zip(lessons, gates_BLMN, strict=True)]
    for number in range(1, spec.rounds):
        late = [task for task, share in enumerate(said) if share < _ENOUGH]
        if not late or time.monotonic() + took > deadline:
            break
        chosen, rate = [lessons[task] for task in late], spec.lr * _LATER**number
        fitted_BLMN = _fitted(edge, chosen, gates_BLMN[late], spec, rate, rank, math.inf)
        for task, lesson, gates_LMN in zip(late, chosen, fitted_BLMN, strict=True):
            share = _said(edge, lesson, gates_LMN, rank)
            if share >= said[task]:
                gates_BLMN[task], said[task] = gates_LMN, share
    return gates_BLMN


def _fitted(
    edge: EdgeModel,
    lessons: Sequence[Sequence[Chat]],
    start_BLMN: torch.Tensor,
    spec: RefineSpec,
    rate: float,
    rank: int,
    deadline: float,
) -> torch.Tensor:
    """Return the gates of tasks after one round; see `refine`."""
    draws = [Random(0) for _ in lessons]
    gates_BLMN = start_BLMN.clone().requires_grad_()
    optimizer = torch.optim.Adam([gates_BLMN], lr=rate)
    owners = [task for task in range(len(lessons)) for _ in range(spec.probes_per_step)]
    for step in range(spec.steps):
        if time.monotonic() > deadline:
            raise DeadlineExceeded(f"refining got to step {step} of {spec.steps} in time")
        chats = [
            chat
            for rng, lesson in zip(draws, lessons, strict=True)
            for chat in rng.choices(lesson, k=spec.probes_per_step)
        ]
        optimizer.param_groups[0]["lr"] = rate * (1 - step / spec.steps)
        optimizer.zero_grad()
        for rows in batches(edge, [len(question) + len(answer) for question, answer in chats]):
            gates = gates_BLMN[[owners[row] for row in rows]].repeat_interleave(rank, -1)
            losses = answer_losses(edge, [chats[row] for row in rows], gates)
            (losses.sum() / spec.probes_per_step).backward()
        optimizer.step()
    return gates_BLMN.detach()


def _said(edge: EdgeModel, lesson: Sequence[Chat], gates_LMN: torch.Tensor, rank: int) -> float:
    """Return the share of a task's answers that the edge model says under its gates."""
    gates_LMR = gates_LMN.repeat_interleave(rank, -1)
    said: list[bool] = []
    for rows in batches(edge, [len(question) + len(answer) for question, answer in lesson]):
        gates_BLMR = gates_LMR.expand(len(rows), -1, -1, -1)
        said += are_said(edge, [lesson[row] for row in rows], gates_BLMR).tolist()
    return sum(said) / len(said)
