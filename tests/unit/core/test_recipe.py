"""The recipe codec: one spelling per recipe, and nothing else is let in."""

import struct
from base64 import urlsafe_b64encode

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loragen.errors import RecipeInvalid, RecipeMismatch
from loragen.recipe import HEADER, MAX_ABS_GATE, MAX_BYTES, GateDtype, Gates, Level, Recipe

POOL = "ab" * 32
DTYPES = st.sampled_from(GateDtype)
GATES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 8)),
    elements=st.floats(-MAX_ABS_GATE, MAX_ABS_GATE, width=32),
)


def encode(gates: Gates, dtype: GateDtype = GateDtype.INT8, level: Level = Level.DENSE) -> Recipe:
    return Recipe.encode(gates, pool_id=POOL, level=level, dtype=dtype)


def example(dtype: GateDtype = GateDtype.INT8) -> Recipe:
    return encode(np.array([[[1.0, -0.5, 0.25]], [[0.0, 2.0, -3.0]]], np.float32), dtype)


@given(gates=GATES, dtype=DTYPES, level=st.sampled_from(Level))
def test_what_is_encoded_is_decoded(gates: Gates, dtype: GateDtype, level: Level) -> None:
    recipe = encode(gates, dtype, level)
    copy = Recipe.decode(recipe.data)
    assert copy == recipe
    assert (copy.id, copy.level, copy.dtype, copy.pool_id) == (recipe.id, level, dtype, POOL)
    np.testing.assert_array_equal(copy.gates, recipe.gates)
    assert Recipe.from_text(recipe.text) == recipe


@given(gates=GATES, dtype=DTYPES)
def test_decoded_gates_encode_to_the_same_bytes(gates: Gates, dtype: GateDtype) -> None:
    recipe = encode(gates, dtype)
    assert encode(recipe.gates, dtype).data == recipe.data


@given(gates=GATES)
def test_float32_is_exact(gates: Gates) -> None:
    np.testing.assert_array_equal(encode(gates, GateDtype.FLOAT32).gates, gates)


@given(gates=GATES)
def test_int8_is_off_by_half_a_step_at_most(gates: Gates) -> None:
    peak = np.abs(gates).max(axis=2, keepdims=True)
    step = peak / 127
    # A row below any useful size becomes zero; float32 itself rounds in the last bit.
    allowed = np.where(step < 1e-37, peak, step / 2) + np.spacing(np.abs(gates) + step)
    assert (np.abs(encode(gates).gates - gates) <= allowed).all()


@given(gates=GATES)
def test_float16_is_off_by_its_rounding_at_most(gates: Gates) -> None:
    stored = encode(gates, GateDtype.FLOAT16).gates
    np.testing.assert_allclose(stored, gates, rtol=2**-11, atol=2**-24)


@settings(max_examples=300)
@given(gates=GATES, dtype=DTYPES, data=st.data())
def test_a_flipped_byte_is_refused_or_another_recipe(
    gates: Gates, dtype: GateDtype, data: st.DataObject
) -> None:
    recipe = encode(gates, dtype)
    damaged = bytearray(recipe.data)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = Recipe.decode(bytes(damaged))
    except RecipeInvalid:
        return
    assert other.id != recipe.id
    assert encode_again(other) == bytes(damaged)


def encode_again(recipe: Recipe) -> bytes:
    return Recipe.encode(
        recipe.gates, pool_id=recipe.pool_id, level=recipe.level, dtype=recipe.dtype
    ).data


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_recipe_of_one_spelling_or_refused(data: bytes) -> None:
    for candidate in (data, example().data[:48] + data):
        try:
            recipe = Recipe.decode(candidate)
        except RecipeInvalid:
            continue
        assert encode_again(recipe) == candidate


@pytest.mark.parametrize("dtype", GateDtype)
def test_no_part_and_no_excess_of_a_recipe_is_one(dtype: GateDtype) -> None:
    data = example(dtype).data
    for length in range(len(data)):
        with pytest.raises(RecipeInvalid):
            Recipe.decode(data[:length])
    with pytest.raises(RecipeInvalid):
        Recipe.decode(data + b"\0")


def test_more_than_the_largest_recipe_is_refused_unread() -> None:
    with pytest.raises(RecipeInvalid, match="bytes"):
        Recipe.decode(example().data[:48] + bytes(MAX_BYTES))


def forged(body: bytes, dtype: GateDtype, experts: int = 2) -> bytes:
    header = HEADER.pack(b"LGRC", 1, 1, dtype, 0, 1, 1, experts, 0, bytes.fromhex(POOL))
    return header + body


@pytest.mark.parametrize(
    ("body", "dtype"),
    {
        "nan": (struct.pack("<2f", float("nan"), 1), GateDtype.FLOAT32),
        "infinite": (struct.pack("<2f", float("inf"), 1), GateDtype.FLOAT32),
        "huge": (struct.pack("<2f", 2e4, 1), GateDtype.FLOAT32),
        "negative zero": (struct.pack("<2f", -0.0, 1), GateDtype.FLOAT32),
        "half nan": (struct.pack("<2e", float("nan"), 1), GateDtype.FLOAT16),
        "half negative zero": (struct.pack("<2e", -0.0, 1), GateDtype.FLOAT16),
        "nan scale": (struct.pack("<f2b", float("nan"), 127, 1), GateDtype.INT8),
        "infinite scale": (struct.pack("<f2b", float("inf"), 127, 1), GateDtype.INT8),
        "infinite scale of zeros": (struct.pack("<f2b", float("inf"), 0, 0), GateDtype.INT8),
        "negative scale": (struct.pack("<f2b", -1, 127, 1), GateDtype.INT8),
        "scale of zeros": (struct.pack("<f2b", 1, 0, 0), GateDtype.INT8),
        "gates without scale": (struct.pack("<f2b", 0, 127, 1), GateDtype.INT8),
        "range not used": (struct.pack("<f2b", 1, 126, 1), GateDtype.INT8),
        "-128": (struct.pack("<f2b", 1, -128, 127), GateDtype.INT8),
        "subnormal scale": (struct.pack("<f2b", 1e-40, 127, 1), GateDtype.INT8),
        "overflowing scale": (struct.pack("<f2b", 3e38, 127, 1), GateDtype.INT8),
    }.values(),
)
def test_forged_gates_are_refused(body: bytes, dtype: GateDtype) -> None:
    with pytest.raises(RecipeInvalid):
        Recipe.decode(forged(body, dtype))


@pytest.mark.parametrize("offset", [0, 4, 5, 6, 7, 8, 10, 12, 14])
def test_a_forged_header_is_refused(offset: int) -> None:
    data = bytearray(example().data)
    data[offset] = 0xEE
    with pytest.raises(RecipeInvalid):
        Recipe.decode(bytes(data))


@pytest.mark.parametrize(
    "gates",
    [
        np.full((1, 1, 2), np.nan),
        np.full((1, 1, 2), np.inf),
        np.full((1, 1, 2), -2e4),
        np.full((1, 1, 2), 1e300),
        np.zeros((2, 2)),
        np.zeros((1, 0, 2)),
        np.zeros((1, 1, 0x10000)),
    ],
)
@pytest.mark.parametrize("dtype", GateDtype)
def test_gates_that_cannot_be_served_are_not_encoded(gates: Gates, dtype: GateDtype) -> None:
    with pytest.raises(RecipeInvalid):
        encode(gates, dtype)


@pytest.mark.parametrize("pool_id", ["", "zz" * 32, "ab" * 31, "ab" * 33])
def test_a_pool_id_is_a_digest(pool_id: str) -> None:
    with pytest.raises(RecipeInvalid, match="pool_id"):
        Recipe.encode(np.ones((1, 1, 1), np.float32), pool_id=pool_id, level=Level.DENSE)


@given(recipe=st.builds(example, DTYPES), data=st.data())
def test_only_one_text_stands_for_a_recipe(recipe: Recipe, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(recipe.text) - 1))
    other = data.draw(st.sampled_from("AB_-+/= \n\r\tzé"))
    text = recipe.text[:position] + other + recipe.text[position + 1 :]
    assume(text != recipe.text)
    try:
        assert Recipe.from_text(text).id != recipe.id
    except RecipeInvalid:
        return


def test_a_text_with_padding_breaks_or_stray_bits_is_refused() -> None:
    text = encode(np.ones((1, 1, 3), np.float32)).text
    assert len(text) % 4 != 0  # so the last character has unused bits
    stray = text[:-1] + chr(ord(text[-1]) + 1)
    for wrong in (text + "=", text + "==", "\n" + text, text[:9] + " " + text[9:], stray, ""):
        with pytest.raises(RecipeInvalid):
            Recipe.from_text(wrong)
    standard = urlsafe_b64encode(bytes([0xFB] * 60)).decode().replace("-", "+")
    with pytest.raises(RecipeInvalid, match="base64url"):
        Recipe.from_text(standard)


@given(gates=GATES, dtype=DTYPES)
def test_validated_text_is_read_by_its_id(gates: Gates, dtype: GateDtype) -> None:
    recipe = encode(gates, dtype)
    copy = Recipe.from_validated(recipe.text, recipe.id)
    assert copy == recipe
    np.testing.assert_array_equal(copy.gates, recipe.gates)


def test_text_of_another_recipe_is_not_read_by_an_id() -> None:
    with pytest.raises(RecipeInvalid, match="not the bytes"):
        Recipe.from_validated(example().text, example(GateDtype.FLOAT16).id)


def test_paper_gates_repeat_over_linears_and_rank() -> None:
    recipe = encode(np.array([[[1.0, 0.0]], [[0.5, 0.25]]], np.float32), GateDtype.FLOAT32)
    expanded = recipe.expand(linears=3, rank=2)
    assert expanded.shape == (2, 3, 4)
    np.testing.assert_array_equal(expanded[1, 2], [0.5, 0.5, 0.25, 0.25])
    np.testing.assert_array_equal(expanded[0], np.tile([1.0, 1.0, 0.0, 0.0], (3, 1)))


def test_dense_gates_expand_to_themselves_at_rank_one() -> None:
    recipe = encode(np.arange(6, dtype=np.float32).reshape(1, 2, 3), GateDtype.FLOAT32)
    np.testing.assert_array_equal(recipe.expand(linears=2, rank=1), recipe.gates)
    with pytest.raises(RecipeInvalid, match="linears"):
        recipe.expand(linears=3, rank=1)


def test_a_recipe_knows_its_pool() -> None:
    recipe = example()
    recipe.require_pool(POOL, layers=2, linears=1, experts=3)
    recipe.require_pool(POOL, layers=2, linears=7, experts=3)
    with pytest.raises(RecipeMismatch):
        recipe.require_pool("00" * 32, layers=2, linears=1, experts=3)
    for layers, experts in ((1, 3), (2, 4)):
        with pytest.raises(RecipeInvalid):
            recipe.require_pool(POOL, layers=layers, linears=1, experts=experts)


def test_gates_cannot_be_changed_and_do_not_print() -> None:
    recipe = example()
    with pytest.raises(ValueError, match="read-only"):
        recipe.gates[0] = 1
    assert recipe.text not in repr(recipe)
    assert "gates" not in repr(recipe)


def test_the_bytes_are_the_documented_ones() -> None:
    recipe = encode(np.array([[[1.0, -0.5]]], np.float32))
    scale = np.float32(1) / np.float32(127)
    assert recipe.data == (
        b"LGRC\x01\x01\x00\x00\x01\x00\x01\x00\x02\x00\x00\x00"
        + bytes.fromhex(POOL)
        + struct.pack("<f2b", scale, 127, -64)
    )
