"""Seal: what is secret in Redis is encrypted, and opens in its own place only.

    FF 6C 67 01 | version: 4 bytes | nonce: 12 bytes | AES-256-GCM ciphertext with its tag

    key             HKDF-SHA256(encryption key, info = tenant), one for each version and tenant
    associated data the Redis key and the field: moved to another tenant or task, nothing opens

Neither text nor a recipe begins with FF, so what was written before there was a key is told from
what is sealed, and read as it is.
"""

import os
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from loragen.errors import SealBroken, SealUnknown
from loragen.secret_versions import version_id

MAGIC: Final = b"\xfflg\x01"
HEAD_BYTES: Final = 8
"""Magic and version: enough to say by which key a value is sealed."""
_NONCE_BYTES: Final = 12
_TENANTS: Final = 10_000


class Seal:
    """Seals and opens under the versions of an encryption key, the newest first.

    Without any it seals nothing, and opens only what is not sealed.
    """

    def __init__(self, encryption_keys: tuple[bytes, ...] = ()) -> None:
        self._secrets = {bytes.fromhex(version_id(each)): each for each in encryption_keys}
        self._cipher = lru_cache(maxsize=_TENANTS)(self._derive)

    @property
    def head(self) -> bytes:
        """What a value sealed here begins with; empty where nothing is sealed."""
        return MAGIC + next(iter(self._secrets)) if self._secrets else b""

    def close(self, tenant: str, place: str, value: bytes) -> bytes:
        """Return a value sealed for its place."""
        head = self.head
        if not head:
            return value
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._cipher(head[len(MAGIC) :], tenant)
        return head + nonce + cipher.encrypt(nonce, value, head + place.encode())

    def open(self, tenant: str, place: str, stored: bytes) -> bytes:
        """Return the value that is stored in a place.

        Raises:
            SealUnknown: it is sealed by a version that is not held here.
            SealBroken: it is damaged, or was sealed for another place.
        """
        if not stored.startswith(MAGIC):
            return stored
        head, nonce = stored[:HEAD_BYTES], stored[HEAD_BYTES : HEAD_BYTES + _NONCE_BYTES]
        version = head[len(MAGIC) :]
        if version not in self._secrets:
            raise SealUnknown(f"sealed by version {version.hex()} of the encryption key")
        sealed = stored[HEAD_BYTES + _NONCE_BYTES :]
        try:
            return self._cipher(version, tenant).decrypt(nonce, sealed, head + place.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken("a stored value is damaged") from error

    def is_current(self, stored: bytes) -> bool:
        """Whether a value is sealed as it would be now."""
        if not self._secrets:
            return not stored.startswith(MAGIC)
        return stored.startswith(self.head)

    def _derive(self, version: bytes, tenant: str) -> AESGCM:
        info = b"loragen seal v1:" + tenant.encode()
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=info).derive(self._secrets[version]))
