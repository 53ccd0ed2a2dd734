"""A key is long, found by its public part, and kept as a hash alone."""

import pytest

from loragen.api_key import ApiKey, KeyRecord


def test_a_key_reads_back_and_carries_160_random_bits() -> None:
    keys = [ApiKey.make() for _ in range(100)]
    secrets = {key.text.rpartition("_")[2] for key in keys}
    assert len(secrets) == len({key.id for key in keys}) == 100
    assert {len(secret) * 5 for secret in secrets} == {160}
    assert all(ApiKey.try_parse(key.text) == key for key in keys)
    assert all(key.text.startswith(f"lg_{key.id}_") for key in keys)


def test_a_key_fits_its_own_digest_alone() -> None:
    one, other = ApiKey.make(), ApiKey.make()
    assert one.fits(one.digest)
    assert not one.fits(other.digest)
    assert not ApiKey(one.id, other.text).fits(one.digest)


def test_no_form_of_it_that_gets_printed_shows_it() -> None:
    key = ApiKey.make()
    record = KeyRecord(id=key.id, tenant="acme", digest=key.digest, created_at=1)
    secret = key.text.rpartition("_")[2]
    for text in (repr(key), str(key), repr(record), str(record), str(record.shown())):
        assert secret not in text
        assert key.digest not in text
        assert key.id in text


@pytest.mark.parametrize(
    "text",
    ["", "lg_", "none", "sk-" + "a" * 40, "lg_" + "a" * 43, "lg_aaaaaaaaaa_" + "A" * 32,
     "lg_aaaaaaaaaa_" + "a" * 31, "lg_aaaaaaaaaa_" + "a" * 33, "lg_aaaaaaaaaa_" + "a" * 32 + "\n"],
)  # fmt: skip
def test_what_has_not_the_form_of_a_key_is_none(text: str) -> None:
    assert ApiKey.try_parse(text) is None


def test_a_key_is_valid_until_it_expires_or_is_revoked() -> None:
    record = KeyRecord(id="x", tenant="acme", digest="", created_at=1)
    assert record.is_valid(1e12)
    assert not record.model_copy(update={"revoked_at": 5}).is_valid(1)
    expiring = record.model_copy(update={"expires_at": 10})
    assert expiring.is_valid(9.9)
    assert not expiring.is_valid(10)
