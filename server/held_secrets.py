"""Held secrets: which versions a gateway holds, by their ids, and how far its renewal is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from config.settings import Settings
from loragen.secret_versions import ROTATED, parse_versions, version_id
from server.renewal import Renewal


@dataclass(frozen=True, slots=True)
class HeldSecrets:
    """The ids of the versions of each rotated secret, the newest first."""

    versions: Mapping[str, Sequence[str]]
    renewal: Renewal | None

    @classmethod
    def of(cls, settings: Settings, renewal: Renewal | None) -> Self:
        """Return what the settings hold.

        Raises:
            ConfigError: a secret is malformed.
        """
        given = {name: getattr(settings, name) for name in ROTATED}
        versions = {
            name: [version_id(each) for each in parse_versions(text.get_secret_value(), name=name)]
            for name, text in given.items()
            if text is not None
        }
        return cls(versions, renewal)

    def shown(self) -> dict[str, Any]:
        """Return what an operator may see: no secret."""
        data = [
            {"object": "secret", "name": name, "versions": versions}
            for name, versions in self.versions.items()
        ]
        renewal = None if self.renewal is None else self.renewal.state.shown()
        return {"object": "list", "data": data, "renewal": renewal}
