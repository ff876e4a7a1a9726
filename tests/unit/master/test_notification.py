import asyncio

from services.master.notification import Notification


async def test_news_between_the_look_and_the_wait_are_not_missed() -> None:
    notification = Notification()
    seen = notification.count
    notification.notify()  # while the waiter was still asking the database
    assert await notification.wait(seen, timeout_s=0.01)


async def test_every_waiter_is_woken_and_a_quiet_one_times_out() -> None:
    notification = Notification()
    waiters = [asyncio.create_task(notification.wait(notification.count)) for _ in range(3)]
    await asyncio.sleep(0)
    notification.notify()
    assert await asyncio.gather(*waiters) == [True] * 3
    assert not await notification.wait(notification.count, timeout_s=0.01)
