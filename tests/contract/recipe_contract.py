"""What the gateway relies on in a store of recipes. A subclass gives the fixture `store`."""

import asyncio

from loragen.store import Store


class RecipeContract:
    """The checks."""

    async def test_the_first_write_of_a_recipe_wins(self, store: Store) -> None:
        assert await store.put_recipe("k", b"first") == b"first"
        assert await store.put_recipe("k", b"second") == b"first"
        assert await store.get_recipe("k") == b"first"

    async def test_concurrent_writers_agree_on_one_recipe(self, store: Store) -> None:
        written = await asyncio.gather(*(store.put_recipe("k", bytes([n])) for n in range(20)))
        assert len(set(written)) == 1

    async def test_a_deleted_recipe_is_gone_and_can_be_written_again(self, store: Store) -> None:
        await store.put_recipe("k", b"first")
        await store.delete_recipe("k")
        await store.delete_recipe("k")
        assert await store.get_recipe("k") is None
        assert await store.put_recipe("k", b"second") == b"second"

    async def test_recipes_are_bytes_of_any_kind(self, store: Store) -> None:
        data = bytes(range(256)) * 16
        await store.put_recipe("k", data)
        assert await store.get_recipe("k") == data
