import asyncio

from services.master.signal import Signal


async def test_news_between_the_look_and_the_wait_are_not_missed() -> None:
    signal = Signal()
    seen = signal.count
    signal.notify()  # while the waiter was still asking the database
    assert await signal.wait(seen, timeout_s=0.01)


async def test_every_waiter_is_woken_and_a_quiet_one_times_out() -> None:
    signal = Signal()
    waiters = [asyncio.create_task(signal.wait(signal.count)) for _ in range(3)]
    await asyncio.sleep(0)
    signal.notify()
    assert await asyncio.gather(*waiters) == [True] * 3
    assert not await signal.wait(signal.count, timeout_s=0.01)
