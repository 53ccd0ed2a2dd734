"""What auto mode relies on. A subclass gives the fixture `sightings`, with a budget of three."""

import asyncio

from loragen.sightings import Budget, Sighting, Sightings

TENANT = "default"
BUDGET = Budget(tasks=3, seconds=60)


class SightingsContract:
    """The checks."""

    async def test_every_sighting_counts_for_its_own_prompt_and_tenant(
        self, sightings: Sightings
    ) -> None:
        assert await sightings.sight(TENANT, "task_a") == Sighting(1, None)
        assert await sightings.sight(TENANT, "task_a") == Sighting(2, None)
        assert await sightings.sight(TENANT, "task_b") == Sighting(1, None)
        assert await sightings.sight("other", "task_a") == Sighting(1, None)

    async def test_of_concurrent_sightings_none_is_lost(self, sightings: Sightings) -> None:
        seen = await asyncio.gather(*(sightings.sight(TENANT, "task_a") for _ in range(50)))
        assert sorted(sighting.count for sighting in seen) == list(range(1, 51))

    async def test_a_length_is_remembered_with_the_sightings(self, sightings: Sightings) -> None:
        await sightings.measure(TENANT, "task_a", 300)  # never seen: there is nothing to add to
        assert await sightings.sight(TENANT, "task_a") == Sighting(1, None)
        await sightings.measure(TENANT, "task_a", 300)
        assert await sightings.sight(TENANT, "task_a") == Sighting(2, 300)

    async def test_what_is_forgotten_begins_again(self, sightings: Sightings) -> None:
        await sightings.sight(TENANT, "task_a")
        await sightings.measure(TENANT, "task_a", 300)
        await sightings.forget(TENANT, "task_a")
        await sightings.forget(TENANT, "task_a")
        assert await sightings.sight(TENANT, "task_a") == Sighting(1, None)

    async def test_the_budget_is_per_tenant_and_a_task_takes_of_it_once(
        self, sightings: Sightings
    ) -> None:
        asked = ("task_a", "task_a", "task_b", "task_c", "task_d", "task_a")
        granted = [await sightings.spend(TENANT, task_id) for task_id in asked]
        assert granted == [True, True, True, True, False, True]
        assert await sightings.spend("other", "task_d")

    async def test_concurrent_spenders_never_overdraw(self, sightings: Sightings) -> None:
        asked = (sightings.spend(TENANT, f"task_{number}") for number in range(50))
        assert sum(await asyncio.gather(*asked)) == BUDGET.tasks
