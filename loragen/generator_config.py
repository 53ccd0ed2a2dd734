"""Generator config: what can be told of a generator's `config.json` without torch."""

from typing import Any


def reads_edge(config: dict[str, Any]) -> bool:
    """Return whether a generator needs the edge model's folder: one with pair experts does."""
    router = config.get("router")
    return isinstance(router, dict) and bool(router.get("pair_experts"))
