"""Background loops outlive what they did not expect, and end when they are told to."""

import asyncio

import pytest

from loragen import background
from loragen.background import end, keep


async def test_a_loop_that_fails_is_logged_and_runs_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "_RUN_AGAIN_SECONDS", 0.0)
    begun = asyncio.Queue[int]()

    async def loop() -> None:
        begun.put_nowait(1)
        if begun.qsize() < 3:
            raise KeyError("what nobody expected")
        await asyncio.Event().wait()

    running = keep(loop)
    async with asyncio.timeout(5):
        while begun.qsize() < 3:  # noqa: ASYNC110 - three begins
            await asyncio.sleep(0.01)
    assert not running.done()
    assert [record.message for record in caplog.records] == ["background loop failed"] * 2
    await end([running])
    assert running.cancelled()


async def test_a_loop_that_is_done_is_not_run_again() -> None:
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1

    async with asyncio.timeout(5):
        await keep(loop)
    assert runs == 1


async def test_a_loop_that_swallows_a_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def loop() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 1:
                    raise

    running = keep(loop)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end([running])
    assert swallowed == 2
