"""Tasks of a tenant as compiled ones are stored, with recipes of random gates that cost no time.

Sizes are those of real ones: a prompt of the suite's length, a record with a measurement, a dense
recipe in int8.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from loragen.keys import TenantKeys
from loragen.measurement import Measurement
from loragen.recipe import HEADER, MAGIC, VERSION, GateDtype, Level
from loragen.task import RecipeRef, Task

EDGE_MODEL: Final = "demo"
LINEARS, EXPERTS = 3, 64
SMALL_LAYERS: Final = 4
_GENERATOR_ID: Final = "ef" * 32
_SCALE: Final = 2.0**-7
"""A power of two, so that integers up to 127 are the one canonical form of their gates."""
_CREATED_AT: Final = 1_760_000_000
_PROMPT: Final = (
    "You are the assistant of shop number {number:07d} in Oslo. Your name is Ada. Greet people "
    "with Ahoy, answer in one sentence, and end every answer with the shop's number."
)


@dataclass(frozen=True, slots=True)
class MadeTask:
    """A task and the bytes of its recipe."""

    task: Task
    recipe: bytes


class TaskMaker:
    """Makes the tasks of one tenant."""

    def __init__(
        self, keys: TenantKeys, *, pool_id: str, template_hash: str, layers: int = SMALL_LAYERS
    ) -> None:
        """Take the tenant's keys, and what the recipes are of."""
        self._keys = keys
        self._pool_id = pool_id
        self._template_hash = template_hash
        self._rows = layers * LINEARS
        shape = (layers, LINEARS, EXPERTS)
        head = HEADER.pack(
            MAGIC, VERSION, Level.DENSE, GateDtype.INT8, 0, *shape, 0, bytes.fromhex(pool_id)
        )
        self._head = head + np.full(self._rows, _SCALE, dtype="<f4").tobytes()

    def task_id(self, number: int) -> str:
        """Return the id of a task by its number."""
        return self._keys.task_ids(edge_model=EDGE_MODEL, prompt=_PROMPT.format(number=number))[0]

    def tasks(self, first: int, count: int) -> Iterator[MadeTask]:
        """Yield tasks by their numbers, which their prompts and gates follow from."""
        for number in range(first, first + count):
            drawn = hashlib.shake_128(number.to_bytes(8)).digest(self._rows * EXPERTS)
            gates = np.maximum(np.frombuffer(drawn, np.int8), -127).reshape(self._rows, EXPERTS)
            gates[:, 0] = 127
            yield self._made(number, self._head + gates.tobytes())

    def _made(self, number: int, recipe: bytes) -> MadeTask:
        prompt = _PROMPT.format(number=number)
        recipe_id = hashlib.sha256(recipe).hexdigest()
        ref = RecipeRef(
            id=recipe_id,
            bytes=len(recipe),
            pool_id=self._pool_id,
            generator_id=_GENERATOR_ID,
            level=1,
            template_hash=self._template_hash,
        )
        created_at = _CREATED_AT + number % 86_400
        measured = Measurement.of(
            recipe_id, fidelity=0.98765, agreement=0.9375, probes=16, doubt=0.0123
        )
        task = Task(
            id=self.task_id(number),
            tenant=self._keys.tenant,
            edge_model=EDGE_MODEL,
            prompt=prompt,
            status="ready",
            created_at=created_at,
            ready_at=created_at + 1,
            prompt_tokens=60,
            recipe=ref,
            compile_seconds=0.01234,
            measurement=measured.model_copy(update={"at": created_at + 2}),
        )
        return MadeTask(task, recipe)
