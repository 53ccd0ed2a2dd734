"""Recipe: the gates of one task as bytes, the only thing a task costs at serving time.

Layout, little-endian, version 1:

    offset  size  field
    0       4     magic b"LGRC"
    4       1     version = 1
    5       1     level: 0 paper (L0), 1 dense (L1)
    6       1     gate dtype: 0 int8, 1 float16, 2 float32
    7       1     reserved = 0
    8       2     layers L
    10      2     linears M (1 = one gate vector for all linears of the layer)
    12      2     experts n
    14      2     reserved = 0
    16      32    pool_id (sha256 of the pool file)
    48      4*L*M scales, float32, int8 only: gate = scale * integer
    ..      L*M*n gates in their dtype

A recipe is immutable and content-addressed: `id` is the sha256 of all its bytes. Decoding accepts
exactly the bytes that encoding the decoded gates would write, so no second spelling of a recipe has
an id of its own.
"""

import binascii
import hashlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from loragen.errors import RecipeInvalid, RecipeMismatch

Gates = npt.NDArray[np.float32]

MAGIC: Final = b"LGRC"
VERSION: Final = 1
HEADER: Final = struct.Struct("<4sBBBBHHHH32s")
MAX_BYTES: Final = 1 << 20
MAX_ABS_GATE: Final = 1e4
"""Beyond this a gate cannot come from training; it would only overflow the edge model."""


_MIN_SCALE: Final = np.finfo(np.float32).tiny
"""Below this int8 scales lose precision; gates so small do nothing and become zero."""


class Level(IntEnum):
    """How much a recipe says; see docs/design: L0 is the paper's, L1 signed gates per linear."""

    PAPER = 0
    DENSE = 1


class GateDtype(IntEnum):
    """How gates are stored."""

    INT8 = 0
    FLOAT16 = 1
    FLOAT32 = 2


_LEVELS: Final = frozenset(Level)
_NUMPY: Final[dict[GateDtype, np.dtype[np.generic]]] = {
    GateDtype.INT8: np.dtype("<i1"),
    GateDtype.FLOAT16: np.dtype("<f2"),
    GateDtype.FLOAT32: np.dtype("<f4"),
}


@dataclass(frozen=True)
class Recipe:
    """Gates of shape [L, M, n] for the pool `pool_id`, with their canonical bytes."""

    level: Level
    dtype: GateDtype
    pool_id: str
    gates: Gates = field(repr=False, compare=False)
    data: bytes = field(repr=False)

    @classmethod
    def encode(
        cls, gates: Gates, *, pool_id: str, level: Level, dtype: GateDtype = GateDtype.INT8
    ) -> Self:
        """Quantise float gates [L, M, n] and return the recipe that a decoder will see.

        Raises:
            RecipeInvalid: gates are not finite, out of bounds, or not three-dimensional.
        """
        with np.errstate(over="ignore"):  # too large for float32 is infinite, refused below
            values = np.asarray(gates, dtype=np.float32)
        if values.ndim != 3 or 0 in values.shape or max(values.shape) > 0xFFFF:
            raise RecipeInvalid(f"gates must be [layers, linears, experts], got {values.shape}")
        _check_bounds(values)
        header = HEADER.pack(
            MAGIC, VERSION, level, dtype, 0, *values.shape, 0, _pool_digest(pool_id)
        )
        return cls.decode(header + _pack(values, dtype))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse and fully validate recipe bytes.

        Raises:
            RecipeInvalid: anything but the canonical bytes of a recipe of this version.
        """
        recipe = cls._parse(data)
        _check_bounds(recipe.gates)
        if _pack(recipe.gates, recipe.dtype) != recipe.data[HEADER.size :]:
            raise RecipeInvalid("recipe gates are not stored in their one canonical form")
        return recipe

    @classmethod
    def _parse(cls, data: bytes) -> Self:
        if not HEADER.size <= len(data) <= MAX_BYTES:
            raise RecipeInvalid(f"a recipe has {HEADER.size} to {MAX_BYTES} bytes, got {len(data)}")
        magic, version, level, dtype, pad0, layers, linears, experts, pad1, pool = (
            HEADER.unpack_from(data)
        )
        if magic != MAGIC or version != VERSION or pad0 or pad1:
            raise RecipeInvalid("not a recipe of format version 1")
        if level not in _LEVELS or dtype not in _NUMPY or 0 in (layers, linears, experts):
            raise RecipeInvalid("recipe header has an unknown level, dtype or an empty shape")
        shape = (layers, linears, experts)
        gates = _unpack(bytes(data[HEADER.size :]), GateDtype(dtype), shape)
        gates.setflags(write=False)
        return cls(Level(level), GateDtype(dtype), pool.hex(), gates, bytes(data))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Decode the base64url form of the `x-lora-recipe` header (RFC 4648 section 5, unpadded).

        Raises:
            RecipeInvalid: not canonical base64url, or not a recipe.
        """
        try:
            raw = text.encode("ascii")
            data = urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
        except (UnicodeEncodeError, binascii.Error, ValueError) as error:
            raise RecipeInvalid("recipe is not base64url") from error
        if urlsafe_b64encode(data).rstrip(b"=") != raw:
            raise RecipeInvalid("recipe is not canonical base64url")
        return cls.decode(data)

    @classmethod
    def from_validated(cls, text: str, recipe_id: str) -> Self:
        """Read text that `from_text` accepted in another process; half its cost.

        The id is the proof: a digest of the bytes, made when they had been validated.

        Raises:
            RecipeInvalid: these are not the bytes of that id.
        """
        raw = text.encode()
        data = urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
        if hashlib.sha256(data).hexdigest() != recipe_id:
            raise RecipeInvalid(f"these are not the bytes of recipe {recipe_id}")
        return cls._parse(data)

    @property
    def text(self) -> str:
        """The base64url form, unpadded."""
        return urlsafe_b64encode(self.data).rstrip(b"=").decode("ascii")

    @cached_property
    def id(self) -> str:
        """Hex sha256 of the bytes: `recipe_id`."""
        return hashlib.sha256(self.data).hexdigest()

    def expand(self, *, linears: int, rank: int) -> Gates:
        """Return gates per pool column, [L, linears, n * rank]: L0 repeats over linears and rank.

        Raises:
            RecipeInvalid: the recipe has another number of linears than the pool.
        """
        own = self.gates.shape[1]
        if own not in (1, linears):
            raise RecipeInvalid(f"recipe gates {own} linears, the pool has {linears}")
        gates = np.broadcast_to(self.gates, (self.gates.shape[0], linears, self.gates.shape[2]))
        return np.repeat(gates, rank, axis=2) if rank > 1 else gates.copy()

    def require_pool(self, pool_id: str, *, layers: int, linears: int, experts: int) -> None:
        """Check that this recipe mixes that pool.

        Raises:
            RecipeMismatch: compiled for another pool.
            RecipeInvalid: the right pool, but an impossible shape.
        """
        if self.pool_id != pool_id:
            raise RecipeMismatch(
                f"recipe was compiled for pool {self.pool_id[:12]}, this is pool {pool_id[:12]}"
            )
        if self.gates.shape not in ((layers, linears, experts), (layers, 1, experts)):
            raise RecipeInvalid(
                f"recipe has gates {self.gates.shape}, the pool mixes {(layers, linears, experts)}"
            )


def _pool_digest(pool_id: str) -> bytes:
    try:
        digest = bytes.fromhex(pool_id)
    except ValueError as error:
        raise RecipeInvalid("pool_id must be hexadecimal") from error
    if len(digest) != 32:
        raise RecipeInvalid("pool_id must be a sha256 digest of 64 hexadecimal digits")
    return digest


def _check_bounds(gates: Gates) -> None:
    if not np.isfinite(gates).all() or np.abs(gates).max() > MAX_ABS_GATE:
        raise RecipeInvalid(f"gates must be finite and at most {MAX_ABS_GATE:g} in size")


def _pack(gates: Gates, dtype: GateDtype) -> bytes:
    if dtype is not GateDtype.INT8:
        stored = gates.astype(_NUMPY[dtype])
        stored[stored == 0] = 0  # -0 is 0
        return bytes(stored.tobytes())
    scales = (np.abs(gates).max(axis=2, keepdims=True) / np.float32(127)).astype("<f4")
    scales[scales < _MIN_SCALE] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = np.where(scales > 0, np.rint(gates / scales), 0)
    return bytes(scales.tobytes() + whole.astype("<i1").tobytes())


def _unpack(body: bytes, dtype: GateDtype, shape: tuple[int, int, int]) -> Gates:
    rows = shape[0] * shape[1]
    scale_bytes = 4 * rows if dtype is GateDtype.INT8 else 0
    expected = scale_bytes + rows * shape[2] * _NUMPY[dtype].itemsize
    if len(body) != expected:
        raise RecipeInvalid(
            f"recipe of gates {shape} has {expected} bytes of them, got {len(body)}"
        )
    stored = np.frombuffer(body, dtype=_NUMPY[dtype], offset=scale_bytes).reshape(shape)
    if dtype is not GateDtype.INT8:
        return stored.astype(np.float32)
    scales = np.frombuffer(body, dtype="<f4", count=rows).reshape(*shape[:2], 1)
    with np.errstate(over="ignore", invalid="ignore"):  # forged scales end in _check_bounds
        return (scales * stored).astype(np.float32)
