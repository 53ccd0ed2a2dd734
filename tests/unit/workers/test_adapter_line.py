"""Requests wait for slots in the order they came in, whoever keeps slots busy."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from workers.adapter_line import AdapterLine


class Request:
    """A request that runs until it is told to end."""

    def __init__(self, line: AdapterLine, adapter: str) -> None:
        self.adapter = adapter
        self.runs = False
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._run(line))

    async def _run(self, line: AdapterLine) -> None:
        async with line.turn(self.adapter):
            self.runs = True
            await self._end.wait()
        self.runs = False

    async def end(self) -> None:
        self._end.set()
        await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_adapters_run_as_there_are_slots_and_of_each_any_number() -> None:
    line = AdapterLine(2)
    requests = [Request(line, adapter) for adapter in "aabbc"]
    await settle()
    assert [each.runs for each in requests] == [True, True, True, True, False]
    for each in requests[:2]:
        await each.end()
    await settle()
    assert requests[4].runs
    for each in requests[2:]:
        await each.end()


async def test_tasks_that_always_run_keep_nobody_waiting_for_ever() -> None:
    line = AdapterLine(1)
    running = Request(line, "hot")
    await settle()
    other = Request(line, "other")
    await settle()
    later = Request(line, "hot")  # vLLM would let it in, and the next, and so on
    await settle()
    assert (running.runs, other.runs, later.runs) == (True, False, False)
    await running.end()
    await settle()
    assert (other.runs, later.runs) == (True, False)
    await other.end()
    await settle()
    assert later.runs
    await later.end()


async def test_who_gives_up_holds_nobody_up() -> None:
    line = AdapterLine(1)
    running, gone, last = (Request(line, adapter) for adapter in "abc")
    await settle()
    gone.task.cancel()
    same = Request(line, "a")
    last.task.cancel()
    await settle()
    assert same.runs
    running.task.cancel()
    await same.end()
    free = Request(line, "d")
    await settle()
    assert free.runs
    await free.end()


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["come", "end", "leave"]))),
)
def test_never_more_adapters_than_slots_and_in_the_end_none(
    slots: int, steps: list[tuple[str, str]]
) -> None:
    async def run() -> None:
        line = AdapterLine(slots)
        requests: list[Request] = []
        for adapter, step in steps:
            of_it = [each for each in requests if each.adapter == adapter]
            if step == "come":
                requests.append(Request(line, adapter))
            elif step == "leave" and of_it:
                of_it[0].task.cancel()
            elif step == "end" and of_it and of_it[0].runs:
                await of_it[0].end()
            await settle()
            requests = [each for each in requests if not each.task.done()]
            running = Counter(each.adapter for each in requests if each.runs)
            assert len(running) <= slots
        for each in requests:  # in the order they came in
            await settle()
            assert each.runs
            await each.end()

    asyncio.run(run())
