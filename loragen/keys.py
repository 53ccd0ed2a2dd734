"""Ids and cache keys, derived per tenant so that no tenant can learn what another compiles.

k_tenant = HKDF-SHA256(master secret, info = tenant id)            (RFC 5869)
task_id  = "task_" + base32(HMAC-SHA256(k_tenant, "task", edge model, prompt[, tools]))[:26]
recipe key = HMAC-SHA256(k_tenant, "recipe", task_id, pool, generator, level, template)
conversation key = HMAC-SHA256(k_tenant, "conversation", task_id, texts it began with)
cache salt = HMAC-SHA256(k_tenant, "cache salt")

The same prompt and tools of the same tenant have the same id for ever; a pool upgrade changes
recipe keys only. A rotated master secret has several versions, the newest first, and whatever is
derived has one form for each: what is new gets the first, what is there may have any.
"""

import hmac
from base64 import b32encode
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from loragen.errors import ConfigError
from loragen.secret_versions import SECRET_BYTES

TASK_ID_PATTERN: Final = r"^task_[a-z2-7]{26}$"


class TenantKeys:
    """Derives the ids of one tenant."""

    def __init__(self, master_secrets: tuple[bytes, ...], tenant: str) -> None:
        """Derive the tenant's key from every version of the master secret, the newest first.

        Raises:
            ConfigError: there is none, or one is too short.
        """
        if not master_secrets or any(len(each) < SECRET_BYTES for each in master_secrets):
            raise ConfigError(f"master_secret needs {SECRET_BYTES} bytes or more")
        info = b"loragen tenant v1:" + tenant.encode()
        self._keys = [HKDF(SHA256(), 32, salt=None, info=info).derive(m) for m in master_secrets]
        self.tenant = tenant

    def task_ids(self, *, edge_model: str, prompt: str, tools: str = "") -> tuple[str, ...]:
        """Return the ids of a prompt and canonical tools, if there are any, for an edge model."""
        digests = self._macs("task", edge_model, prompt, *([tools] if tools else []))
        return tuple("task_" + b32encode(digest).decode().lower()[:26] for digest in digests)

    def recipe_keys(
        self, *, task_id: str, pool_id: str, generator_id: str, level: int, template_hash: str
    ) -> tuple[str, ...]:
        """Return the cache keys of a task's recipe from one generator and pool, in hex."""
        parts = ("recipe", task_id, pool_id, generator_id, str(level), template_hash)
        return tuple(digest.hex() for digest in self._macs(*parts))

    def conversation_keys(self, *, task_id: str, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the keys of a conversation that follows a task and began with these texts."""
        return tuple(digest.hex()[:32] for digest in self._macs("conversation", task_id, *texts))

    @cached_property
    def cache_salt(self) -> str:
        """What keeps the tenant's blocks in a worker's prefix cache apart, in hex.

        vLLM hashes it into the first block of every request, and so into all that follow. Where two
        tenants send the same text, neither finds what the other left, and no wait tells of it
        (https://docs.vllm.ai/en/latest/design/prefix_caching.html).
        """
        return self._macs("cache salt")[0].hex()[:32]

    def _macs(self, *parts: str) -> list[bytes]:
        # Length prefixes keep ("ab", "c") and ("a", "bc") apart.
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
        return [hmac.digest(key, message, "sha256") for key in self._keys]
