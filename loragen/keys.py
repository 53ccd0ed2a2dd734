"""Ids and cache keys, derived per tenant so that no tenant can learn what another compiles.

k_tenant = HKDF-SHA256(master secret, info = tenant id)            (RFC 5869)
task_id  = "task_" + base32(HMAC-SHA256(k_tenant, "task", edge model, prompt[, tools]))[:26]
recipe key = HMAC-SHA256(k_tenant, "recipe", task_id, pool, generator, level, template)
conversation key = HMAC-SHA256(k_tenant, "conversation", task_id, texts it began with)
cache salt = HMAC-SHA256(k_tenant, "cache salt")

The same prompt and tools of the same tenant have the same id for ever; a pool upgrade changes
recipe keys only.
"""

import hmac
from base64 import b32encode
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from loragen.errors import ConfigError

MASTER_BYTES: Final = 32
TASK_ID_PATTERN: Final = r"^task_[a-z2-7]{26}$"


class TenantKeys:
    """Derives the ids of one tenant."""

    def __init__(self, master_secret: bytes, tenant: str) -> None:
        """Derive the tenant's key.

        Raises:
            ConfigError: the master secret is too short.
        """
        if len(master_secret) < MASTER_BYTES:
            raise ConfigError(f"master_secret needs {MASTER_BYTES} bytes or more")
        info = b"loragen tenant v1:" + tenant.encode()
        self._key = HKDF(SHA256(), 32, salt=None, info=info).derive(master_secret)
        self.tenant = tenant

    def task_id(self, *, edge_model: str, prompt: str, tools: str = "") -> str:
        """Return the id of a prompt and canonical tools, if there are any, for an edge model."""
        digest = self._mac("task", edge_model, prompt, *([tools] if tools else []))
        return "task_" + b32encode(digest).decode().lower()[:26]

    def recipe_key(
        self, *, task_id: str, pool_id: str, generator_id: str, level: int, template_hash: str
    ) -> str:
        """Return the cache key of a task's recipe from one generator and pool, in hex."""
        return self._mac("recipe", task_id, pool_id, generator_id, str(level), template_hash).hex()

    def conversation_key(self, *, task_id: str, texts: Sequence[str]) -> str:
        """Return the key of a conversation that follows a task and began with these texts."""
        return self._mac("conversation", task_id, *texts).hex()[:32]

    @cached_property
    def cache_salt(self) -> str:
        """What keeps the tenant's blocks in a worker's prefix cache apart, in hex.

        vLLM hashes it into the first block of every request, and so into all that follow. Where two
        tenants send the same text, neither finds what the other left, and no wait tells of it
        (https://docs.vllm.ai/en/latest/design/prefix_caching.html).
        """
        return self._mac("cache salt").hex()[:32]

    def _mac(self, *parts: str) -> bytes:
        # Length prefixes keep ("ab", "c") and ("a", "bc") apart.
        encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in encoded)
        return hmac.digest(self._key, message, "sha256")


def parse_master_secret(text: str) -> bytes:
    """Return the bytes of a hexadecimal master secret.

    Raises:
        ConfigError: not hexadecimal, or too short.
    """
    try:
        secret = bytes.fromhex(text.strip())
    except ValueError as error:
        raise ConfigError("master_secret must be hexadecimal") from error
    if len(secret) < MASTER_BYTES:
        raise ConfigError(f"master_secret needs {MASTER_BYTES} bytes or more")
    return secret
