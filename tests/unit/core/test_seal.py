"""What is sealed opens in its own place, unchanged, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragen.errors import SealBroken, SealUnknown
from loragen.recipe import MAGIC as RECIPE_MAGIC
from loragen.seal import HEAD_BYTES, MAGIC, Seal
from loragen.secret_versions import version_id

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PLACE = "ns:task:acme:task_x prompt"


def sealed(value: bytes = b"secret", *, keys: tuple[bytes, ...] = (NEW,)) -> bytes:
    return Seal(keys).close("acme", PLACE, value)


@given(value=st.binary(), tenant=st.text(min_size=1), place=st.text())
def test_a_value_comes_back_and_is_not_seen(value: bytes, tenant: str, place: str) -> None:
    seal = Seal((NEW,))
    stored = seal.close(tenant, place.encode("utf-8", "replace").decode(), value)
    assert seal.open(tenant, place.encode("utf-8", "replace").decode(), stored) == value
    assert stored[:HEAD_BYTES] == MAGIC + bytes.fromhex(version_id(NEW))
    assert len(value) < 4 or value not in stored[HEAD_BYTES:]


def test_the_same_value_never_looks_the_same() -> None:
    assert len({sealed() for _ in range(100)}) == 100


@given(st.data())
def test_no_damaged_value_opens(data: st.DataObject) -> None:
    stored = bytearray(sealed(b"You are Ada."))
    at = data.draw(st.integers(len(MAGIC), len(stored) - 1))
    stored[at] ^= data.draw(st.integers(1, 255))
    end = data.draw(st.integers(at + 1, len(stored)))
    with pytest.raises((SealBroken, SealUnknown)):
        Seal((NEW,)).open("acme", PLACE, bytes(stored[:end]))


@pytest.mark.parametrize("size", range(len(MAGIC), HEAD_BYTES + 12 + 16))
def test_no_short_value_opens(size: int) -> None:
    with pytest.raises((SealBroken, SealUnknown)):
        Seal((NEW,)).open("acme", PLACE, sealed(b"")[:size])


@pytest.mark.parametrize(
    ("tenant", "place"),
    [
        ("globex", PLACE),
        ("globex", "ns:task:globex:task_x prompt"),
        ("acme", "ns:task:acme:task_y prompt"),
        ("acme", "ns:task:acme:task_x tools"),
        ("acme", "other:task:acme:task_x prompt"),
    ],
)
def test_a_value_that_was_moved_does_not_open(tenant: str, place: str) -> None:
    with pytest.raises(SealBroken):
        Seal((NEW,)).open(tenant, place, sealed())


def test_any_version_opens_and_the_first_seals() -> None:
    for keys in ((NEW, OLD), (OLD, NEW)):
        seal = Seal(keys)
        for version in keys:
            assert seal.open("acme", PLACE, sealed(keys=(version,))) == b"secret"
        assert seal.close("acme", PLACE, b"x").startswith(seal.head)
        assert [seal.is_current(sealed(keys=(each,))) for each in keys] == [True, False]


def test_a_version_that_is_not_held_is_told_by_its_id() -> None:
    with pytest.raises(SealUnknown, match=version_id(NEW)):
        Seal((OLD,)).open("acme", PLACE, sealed())
    with pytest.raises(SealUnknown):
        Seal().open("acme", PLACE, sealed())


def test_what_was_written_before_there_was_a_key_is_read() -> None:
    for value in ("ÿ Prompt 🦊".encode(), RECIPE_MAGIC + b"\xff", b"{}", b""):
        assert Seal((NEW,)).open("acme", PLACE, value) == value
        assert Seal().close("acme", PLACE, value) == value
        assert not Seal((NEW,)).is_current(value)
        assert Seal().is_current(value)
