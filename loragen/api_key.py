"""API keys: what a client shows to be a tenant, and the little that is kept of it.

    lg_<id>_<secret>      id: 10, secret: 32 characters of base32, so 50 and 160 random bits

The id is public: it finds the record, and names the key in lists and logs. The whole key is shown
once, when it is made; kept is its SHA-256.
"""

import hashlib
import hmac
import re
import secrets
from base64 import b32encode
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

PREFIX: Final = "lg_"

_FORM: Final = re.compile(r"lg_([a-z2-7]{10})_[a-z2-7]{32}")
_ID_CHARS: Final = 10
_SECRET_BYTES: Final = 20


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its bearer holds it; `str` and `repr` never show it."""

    id: str
    text: str = field(repr=False)

    @classmethod
    def make(cls) -> "ApiKey":
        """Return a key that nobody has."""
        key_id = _random_text(_SECRET_BYTES)[:_ID_CHARS]
        return cls(key_id, f"{PREFIX}{key_id}_{_random_text(_SECRET_BYTES)}")

    @classmethod
    def try_parse(cls, text: str) -> "ApiKey | None":
        """Return the key that a text is, None if it has not the form of one."""
        form = _FORM.fullmatch(text)
        return None if form is None else cls(form[1], text)

    @property
    def digest(self) -> str:
        """What is kept of the key, in hex.

        A plain SHA-256: slow and salted hashes protect what people make up, by making guesses
        dear. 160 random bits cannot be guessed, and every request pays for the hash.
        """
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fits(self, digest: str) -> bool:
        """Whether this is the key that was kept as `digest`, in constant time."""
        return hmac.compare_digest(self.digest, digest)


class KeyRecord(BaseModel):
    """What is known of a key; times are Unix seconds."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str
    tenant: str
    digest: str = Field(repr=False)
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    def is_valid(self, now: float) -> bool:
        """Whether the key opens anything at a time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def shown(self) -> dict[str, str | int | None]:
        """Return what a list of keys may show."""
        return {"object": "key", **self.model_dump(exclude={"digest"})}


def _random_text(size: int) -> str:
    return b32encode(secrets.token_bytes(size)).decode().lower()
