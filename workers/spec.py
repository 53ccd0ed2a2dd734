"""Worker spec: what one worker serves, carried to every vLLM process in `--additional-config`.

vLLM starts its engine in other processes; this is the only thing that reaches our code there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from config.edge_model import Backend
from loragen.errors import ConfigError

CONFIG_KEY: Final = "loragen"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The edge model and, where it has one, the pool whose recipes are mixed.

    `pool_id` is None until the pool file was read and found to belong to the edge model; until then
    `backend` may be `auto`.
    """

    edge_model: str
    template_hash: str
    pool: Path | None = None
    pool_id: str | None = None
    backend: Backend = "gate"
    adapter_slots: int = 8

    def additional_config(self) -> dict[str, dict[str, str | int | None]]:
        """Return the value of vLLM's `--additional-config`."""
        return {
            CONFIG_KEY: {
                "edge_model": self.edge_model,
                "template_hash": self.template_hash,
                "pool": str(self.pool) if self.pool else None,
                "pool_id": self.pool_id,
                "backend": self.backend,
                "adapter_slots": self.adapter_slots,
            }
        }

    @classmethod
    def from_additional_config(cls, config: Mapping[str, Any] | None) -> Self:
        """Read back what `additional_config` wrote.

        Raises:
            ConfigError: vLLM was started without it.
        """
        try:
            fields = (config or {})[CONFIG_KEY]
            return cls(
                edge_model=fields["edge_model"],
                template_hash=fields["template_hash"],
                pool=Path(fields["pool"]) if fields["pool"] else None,
                pool_id=fields["pool_id"],
                backend=fields["backend"],
                adapter_slots=fields["adapter_slots"],
            )
        except KeyError as error:
            raise ConfigError(
                f"--additional-config lacks {CONFIG_KEY!r} or its {error}: "
                "start workers with `python -m workers`"
            ) from error
