"""What blocks runs beside the event loop, in bounded numbers and for a bounded time."""

import asyncio
import threading

import pytest

from tests.notify.messages.conftest import change, notification, target
from trackd.notify.messages import sender as sender_module
from trackd.notify.messages.sender import BUSY_PAUSE_S, MessageOptions, MessageSender
from trackd.notify.messages.threads import NoThread, Threads
from trackd.notify.messages.watch import Watch
from trackd.notify.outcome import Verdict


def watch() -> Watch:
    """A watch of a work that connects to nothing."""
    return Watch(anywhere=False, allow_local=False)


async def test_who_finds_no_thread_in_time_is_told() -> None:
    """The first work takes too long, and keeps its thread until it ends; then others have it."""
    release = threading.Event()
    threads = Threads(count=1, timeout_s=0.1)
    first, second = await asyncio.gather(
        *(threads.run("ep_1", release.wait, watch()) for _ in range(2)), return_exceptions=True
    )
    assert isinstance(first, TimeoutError)
    assert isinstance(second, NoThread)
    release.set()
    while True:
        try:
            assert await threads.run("ep_1", lambda: "ran", watch()) == "ran"
        except NoThread:
            continue
        break
    await threads.close()


async def test_a_text_that_found_no_thread_is_postponed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was tried, so nothing failed: it costs no attempt."""
    release = threading.Event()
    monkeypatch.setattr(sender_module, "send_by_apprise", lambda *_, **__: release.wait())
    sender = MessageSender(MessageOptions(schemes=("json",), threads=1, timeout_s=0.1))
    to = target("json://example.com/")
    first, second = await asyncio.gather(
        *(sender.send(to, notification(change(waybill=waybill))) for waybill in ("W001", "W002"))
    )
    assert (first.verdict, first.error) == (Verdict.FAILED, "no answer in time")
    assert (second.verdict, second.after_s) == (Verdict.POSTPONED, BUSY_PAUSE_S)
    release.set()
    await sender.close()


async def test_an_error_of_a_work_is_its_caller_s() -> None:
    """And the thread is free again."""

    def fails() -> None:
        raise ValueError("a defect")

    threads = Threads(count=1, timeout_s=30)
    for _ in range(2):
        with pytest.raises(ValueError, match="a defect"):
            await threads.run("ep_1", fails, watch())
    assert await threads.run("ep_1", lambda: 1, watch()) == 1
    await threads.close()
