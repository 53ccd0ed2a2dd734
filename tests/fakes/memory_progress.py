"""The progress of upgrades without Redis, in this process's memory."""

import asyncio

from loragen.upgrades import Progress


class MemoryUpgradeProgress:
    """Keeps progress in a dictionary."""

    def __init__(self) -> None:
        self._known: dict[str, Progress] = {}

    async def read(self, model: str) -> Progress | None:
        """Return the latest progress of an edge model; None where there is none."""
        await asyncio.sleep(0)
        return self._known.get(model)

    async def write(self, model: str, progress: Progress) -> None:
        """Keep the progress of an edge model in place of an earlier one."""
        await asyncio.sleep(0)
        self._known[model] = progress

    async def clear(self, model: str) -> None:
        """Forget the progress of an edge model."""
        await asyncio.sleep(0)
        self._known.pop(model, None)
