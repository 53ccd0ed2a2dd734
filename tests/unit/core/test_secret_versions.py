"""Versions of a secret are read as the operator wrote them, and never repeated in an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragen.errors import ConfigError
from loragen.secret_versions import parse_versions, version_id

ONE, OTHER = bytes(range(32)), bytes(range(1, 34))


@pytest.mark.parametrize(
    "text", ["", "xyz", "ab" * 31, "0x" + "ab" * 32, "ab" * 32 + ",", "é" * 64]
)
def test_a_weak_or_malformed_secret_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="master_secret") as caught:
        parse_versions(text, name="master_secret")
    assert not text or text not in str(caught.value)


def test_the_same_version_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        parse_versions(f"{ONE.hex()},{ONE.hex().upper()}", name="master_secret")


@given(
    st.lists(st.binary(min_size=32, max_size=40), min_size=1, max_size=5, unique=True),
    st.sampled_from([",", " ", ", ", "\n", " ,\r\n"]),
)
def test_versions_come_in_their_order(secrets: list[bytes], between: str) -> None:
    text = between.join(secret.hex() for secret in secrets) + "\n"
    assert parse_versions(text, name="x") == tuple(secrets)


def test_a_version_has_a_short_id_of_its_own() -> None:
    assert version_id(ONE) == "080a3deb"
    assert version_id(ONE) != version_id(OTHER)
