"""Slot table: which row of the gates table holds which recipe. Least recently used rows go first.

Rows 0 .. rows-1 hold recipes; one row more, `zero_row`, belongs to tokens without a task.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """One row and the name (recipe_id) of what it holds."""

    row: int
    name: str


class SlotTable:
    """Rows by the number vLLM knows a recipe by (`lora_int_id`)."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.changes = 0
        """Counts up whenever a row comes to hold another recipe, or none."""
        self.clear()

    @property
    def zero_row(self) -> int:
        """The row of tokens without a task; no recipe is ever placed there."""
        return self.rows

    def clear(self) -> None:
        """Forget all recipes."""
        self.changes += 1
        self._held: OrderedDict[int, Slot] = OrderedDict()  # least recently used first
        self._free = list(range(self.rows - 1, -1, -1))

    def ids(self) -> set[int]:
        """Return the numbers that hold a row."""
        return set(self._held)

    def row(self, number: int) -> int:
        """Return the row of a placed recipe."""
        return self._held[number].row

    def holds(self, number: int, name: str) -> bool:
        """Whether the row of `number` holds exactly this recipe, not an earlier one's."""
        slot = self._held.get(number)
        return slot is not None and slot.name == name

    def place(self, wanted: Mapping[int, str]) -> dict[int, int]:
        """Give every wanted recipe (name by number) a row; return the rows to write, by number.

        A wanted recipe never loses its row to another: those already here are touched first, so
        while there are no more wanted than rows the oldest row is always an unwanted one.

        Raises:
            ValueError: more recipes than rows.
        """
        if len(wanted) > self.rows:
            raise ValueError(f"{len(wanted)} recipes in one step, {self.rows} slots")
        for number in wanted:
            if number in self._held:
                self._held.move_to_end(number)
        written = {}
        for number, name in wanted.items():
            if self.holds(number, name):
                continue
            row = self._take_row(number)
            self._held[number] = Slot(row, name)
            self._held.move_to_end(number)
            written[number] = row
        self.changes += len(written)
        return written

    def drop(self, number: int) -> bool:
        """Free the row of a recipe; return whether it had one."""
        slot = self._held.pop(number, None)
        if slot is None:
            return False
        self.changes += 1
        self._free.append(slot.row)
        return True

    def _take_row(self, number: int) -> int:
        if number in self._held:  # the number is used again for another recipe
            return self._held[number].row
        if self._free:
            return self._free.pop()
        return self._held.popitem(last=False)[1].row
