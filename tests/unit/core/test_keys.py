"""Ids are stable for ever and tell nothing to another tenant."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragen.errors import ConfigError
from loragen.keys import TASK_ID_PATTERN, TenantKeys

SECRET = bytes(range(32))
GOLDEN_TASK = "task_traptlieavmlhkibqyosvbbvsd"
GOLDEN_RECIPE = "b51062a3d2185ecc0906824143b24bf8735982bada44ff1a024ba27c10dcdae8"
PARTS = {
    "task_id": "task_x", "pool_id": "p", "generator_id": "g", "level": 1, "template_hash": "t"
}  # fmt: skip


def recipe_key(keys: TenantKeys, **changed: object) -> str:
    return keys.recipe_keys(**{**PARTS, **changed})[0]  # type: ignore[arg-type]


def test_ids_are_the_golden_ones() -> None:
    """They name what stored deployments hold: a change here orphans every task."""
    keys = TenantKeys((SECRET,), "default")
    assert keys.task_ids(edge_model="demo", prompt="You are Ada.")[0] == GOLDEN_TASK
    assert recipe_key(keys) == GOLDEN_RECIPE


@given(prompt=st.text(), model=st.text())
def test_an_id_has_its_form_and_repeats(prompt: str, model: str) -> None:
    keys = TenantKeys((SECRET,), "default")
    task_id = keys.task_ids(edge_model=model, prompt=prompt)[0]
    assert re.fullmatch(TASK_ID_PATTERN, task_id)
    assert task_id == TenantKeys((SECRET,), "default").task_ids(edge_model=model, prompt=prompt)[0]


def test_tools_are_part_of_an_id() -> None:
    keys = TenantKeys((SECRET,), "default")
    ids = [
        keys.task_ids(edge_model="m", prompt="p", tools=tools)[0] for tools in ("", "[1]", "[2]")
    ]
    assert len(set(ids)) == 3
    assert ids[0] == keys.task_ids(edge_model="m", prompt="p")[0]
    assert keys.task_ids(edge_model="m", prompt="", tools="p")[0] != ids[0]


@given(parts=st.tuples(st.text(), st.text()), others=st.tuples(st.text(), st.text()))
def test_different_parts_never_share_an_id(parts: tuple[str, str], others: tuple[str, str]) -> None:
    keys = TenantKeys((SECRET,), "default")
    ids = [keys.task_ids(edge_model=model, prompt=prompt)[0] for model, prompt in (parts, others)]
    assert (ids[0] == ids[1]) == (parts == others)


@pytest.mark.parametrize("split", range(1, 4))
def test_moving_the_border_between_parts_changes_the_id(split: int) -> None:
    keys = TenantKeys((SECRET,), "default")
    whole = keys.task_ids(edge_model="", prompt="abcd")[0]
    assert keys.task_ids(edge_model="abcd"[:split], prompt="abcd"[split:])[0] != whole


def test_tenants_and_secrets_separate_everything() -> None:
    variants = [
        TenantKeys((SECRET,), "default"),
        TenantKeys((SECRET,), "other"),
        TenantKeys((bytes(32),), "default"),
    ]
    assert len({keys.task_ids(edge_model="demo", prompt="x")[0] for keys in variants}) == 3
    assert len({recipe_key(keys) for keys in variants}) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"task_id": "u"},
        {"pool_id": "q"},
        {"generator_id": "h"},
        {"level": 0},
        {"template_hash": "s"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_part_counts_in_a_recipe_key(changed: dict[str, object]) -> None:
    keys = TenantKeys((SECRET,), "default")
    assert recipe_key(keys, **changed) != recipe_key(keys)


def test_a_conversation_is_known_by_task_and_beginning() -> None:
    def key(task_id: str, *texts: str, tenant: str = "default") -> str:
        return TenantKeys((SECRET,), tenant).conversation_keys(task_id=task_id, texts=texts)[0]

    variants = [
        key("t", "hello", "hi"),
        key("t", "hello"),
        key("t", "hellohi", ""),
        key("u", "hello", "hi"),
        key("t", "hello", "hi", tenant="other"),
    ]
    assert len(set(variants)) == len(variants)
    assert key("t", "hello", "hi") == variants[0]
    assert "hello" not in variants[0]


def test_every_version_of_the_secret_has_its_ids_the_newest_first() -> None:
    old, new = bytes(32), SECRET
    both = TenantKeys((new, old), "default")
    single = [TenantKeys((secret,), "default") for secret in (new, old)]
    asked = {"edge_model": "demo", "prompt": "x"}
    assert both.task_ids(**asked) == tuple(keys.task_ids(**asked)[0] for keys in single)
    assert both.recipe_keys(**PARTS) == tuple(recipe_key(keys) for keys in single)  # type: ignore[arg-type]
    begun = [keys.conversation_keys(task_id="t", texts=["hi"])[0] for keys in single]
    assert both.conversation_keys(task_id="t", texts=["hi"]) == tuple(begun)


def test_a_short_secret_derives_no_keys() -> None:
    with pytest.raises(ConfigError, match="master_secret"):
        TenantKeys((SECRET[:-1],), "default")
    with pytest.raises(ConfigError, match="master_secret"):
        TenantKeys((), "default")


def test_a_salt_is_one_tenants_and_stays() -> None:
    salts = [TenantKeys((SECRET,), tenant).cache_salt for tenant in ("default", "acme", "default")]
    assert salts[0] == salts[2] != salts[1]
    assert TenantKeys((bytes(32),), "default").cache_salt != salts[0]
    assert TenantKeys((SECRET, bytes(32)), "default").cache_salt == salts[0]
