"""Secret versions: a secret that is rotated is several, the newest first.

What is new is derived from the first; what is there is found by any. A version is spoken of by
its id, a short hash: the secret is random, so that its hash tells nothing of it.
"""

import hashlib
import re
from typing import Final

from loragen.errors import ConfigError

SECRET_BYTES: Final = 32
ROTATED: Final = ("master_secret", "encryption_key")
"""The secrets that have versions."""
_ID_CHARS: Final = 8


def parse_versions(text: str, *, name: str) -> tuple[bytes, ...]:
    """Return the versions in the value of a setting: hexadecimal, apart by commas or spaces.

    Raises:
        ConfigError: there is none, or one is not hexadecimal, too short, or there twice.
    """
    versions = tuple(_parsed(each, name) for each in re.split(r"[,\s]+", text.strip()))
    if len(set(versions)) != len(versions):
        raise ConfigError(f"{name} has the same version twice")
    return versions


def version_id(secret: bytes) -> str:
    """Return what a version is spoken of by."""
    return hashlib.sha256(b"loragen secret version:" + secret).hexdigest()[:_ID_CHARS]


def _parsed(text: str, name: str) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError(f"{name} must be hexadecimal") from error
    if len(secret) < SECRET_BYTES:
        raise ConfigError(f"{name} needs {SECRET_BYTES} bytes or more")
    return secret
