"""Identity: which task a prompt is, whatever version of the master secret named it."""

from collections.abc import Callable, Sequence

from loragen.keys import TenantKeys
from loragen.store import Store
from loragen.task import Task
from loragen.tools import Tools, canonical_tools


class Identity:
    """Finds the task that a tenant has of a prompt."""

    def __init__(self, store: Store, keys: Callable[[str], TenantKeys]) -> None:
        self._store = store
        self._keys = keys

    def ids(self, tenant: str, model: str, prompt: str, tools: Tools = ()) -> tuple[str, ...]:
        """Return the ids that prompt and tools have as a task, the one of a new task first."""
        return self._keys(tenant).task_ids(
            edge_model=model, prompt=prompt, tools=canonical_tools(tools)
        )

    def ids_of(self, task: Task) -> tuple[str, ...]:
        """Return the ids of a task's prompt; its own may be of a version that was retired."""
        return self.ids(task.tenant, task.edge_model, task.prompt, task.tools)

    async def find(self, tenant: str, ids: Sequence[str]) -> str:
        """Return the id of the task that a prompt of these ids has, or is to have.

        Raises:
            StoreUnavailable: Redis is away.
        """
        return await self._store.find(tenant, ids) or ids[0]
