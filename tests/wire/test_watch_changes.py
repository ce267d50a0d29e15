"""WatchChanges at the door: what it answers, and every place that it must refuse (row 16)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.harness.server import ServerProcess
from tests.wire.caller import NOON_MS, Caller, refused, scan_event
from trackd.v1.feed_pb2 import (
    START_FROM_EARLIEST,
    START_FROM_NOW,
    START_FROM_SNAPSHOT,
    ChangeFilter,
    FeedStart,
    WatchChangesRequest,
    WatchChangesResponse,
)
from trackd.v1.feed_pb2_grpc import FeedServiceStub
from trackd.v1.vocabulary_pb2 import EventCode


def start_from(origin: int) -> FeedStart:
    """A place without a token."""
    return FeedStart(**{"from": origin})  # type: ignore[arg-type]


def watch(caller: Caller, **fields: Any) -> Any:
    """A running WatchChanges."""
    stub: Any = FeedServiceStub(caller.channel)
    return stub.WatchChanges(WatchChangesRequest(**fields))


async def told(call: Any) -> list[WatchChangesResponse]:
    """Everything up to the news that there is no more, which is the last."""
    messages = []
    async with asyncio.timeout(20):
        async for message in call:
            messages.append(message)
            if message.HasField("caught_up"):
                break
    call.cancel()
    return messages


async def a_token(caller: Caller) -> str:
    """Where the feed is now."""
    (message,) = await told(watch(caller, start=start_from(START_FROM_NOW)))
    token: str = message.resume_token
    return token


async def test_a_change_from_every_start(caller: Caller, waybill: str) -> None:
    """From now, from the beginning, from a token, after a snapshot: the same change, or status."""
    before = await a_token(caller)
    live = watch(caller)
    assert (await live.read()).HasField("caught_up")
    await caller.append(scan_event("a", waybill, code=EventCode.EVENT_CODE_PICKED_UP))
    async with asyncio.timeout(10):
        (heard,) = (await live.read()).changes.changes
    live.cancel()
    assert (heard.waybill_number, heard.event.event_id) == (waybill, "a")
    wanted = ChangeFilter(waybill_numbers=[f" {waybill.lower()} "])
    for start in (start_from(START_FROM_EARLIEST), FeedStart(resume_token=before)):
        first, last = await told(watch(caller, filter=wanted, start=start))
        assert list(first.changes.changes) == [heard]
        assert last.HasField("caught_up")
        (after,) = await told(watch(caller, start=FeedStart(resume_token=last.resume_token)))
        assert after.resume_token == last.resume_token
    first, _ = await told(watch(caller, filter=wanted, start=start_from(START_FROM_SNAPSHOT)))
    (status,) = first.changes.changes
    assert status.status == heard.status
    assert not status.previous_milestone
    assert "!" in first.resume_token
    again = await told(
        watch(caller, filter=wanted, start=FeedStart(resume_token=first.resume_token))
    )
    assert [len(each.changes.changes) for each in again] == [0]


async def test_only_news_is_told_to_whoever_wants_no_more(caller: Caller, waybill: str) -> None:
    """Another facility is a change, and no news."""
    for number, event_id in enumerate("ab"):
        place = {"facility_code": f"HUB-{number}", "occurred_at_ms": NOON_MS + number}
        await caller.append(scan_event(event_id, waybill, **place))
    for news_only, wanted in ((False, ["a", "b"]), (True, ["a"])):
        only = ChangeFilter(waybill_numbers=[waybill], news_only=news_only)
        messages = await told(watch(caller, filter=only, start=start_from(START_FROM_EARLIEST)))
        changes = [change for message in messages for change in message.changes.changes]
        assert [change.event.event_id for change in changes] == wanted


async def test_tokens_that_are_none_are_refused(caller: Caller, waybill: str) -> None:
    """Garbage, of other data, from the future, of a part of the partitions: each says which."""
    await caller.append(scan_event("a", waybill))
    token = await a_token(caller)
    data_set, _, parts = token.partition("/")
    one, *others = parts.split(",")
    number, _, position = one.partition(".")
    future = ",".join([f"{number}.{int(position) + 10**9}", *others])
    bad = {
        "x": "INVALID_POSITION",
        "\x00/!": "INVALID_POSITION",
        token + "!": "INVALID_POSITION",
        token + "!7.AAAA": "INVALID_POSITION",
        token + "!0.~~~": "INVALID_POSITION",
        token + "! 0.": "INVALID_POSITION",
        token + "!0_0.": "INVALID_POSITION",
        token + "!" + "0" * 5_000 + ".": "INVALID_POSITION",
        token + "9" * 20: "INVALID_POSITION",
        token + "!0." + "A" * 400: "INVALID_POSITION",
        token + ",0.1": "INVALID_POSITION",
        token + ",9.1": "INVALID_POSITION",
        f"{data_set}/{one}": "INVALID_POSITION",
        f"{data_set}/{future}": "INVALID_POSITION",
        f"0123456789abcdef/{parts}": "POSITION_UNKNOWN",
    }
    for text, reason in bad.items():
        refusal = await refused(watch(caller, start=FeedStart(resume_token=text)).read())
        assert refusal.reason == reason, text
    codes = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    assert refusal.code in codes


async def test_news_only_is_what_the_waybill_had_not_had(caller: Caller, waybill: str) -> None:
    """Milestones for the first time, flags and corrections, from the past as well as live."""
    wanted = ChangeFilter(waybill_numbers=[waybill], news_only=True)
    live = watch(caller, filter=wanted)
    assert (await live.read()).HasField("caught_up")
    codes = (
        EventCode.EVENT_CODE_PICKED_UP,
        EventCode.EVENT_CODE_ARRIVED_AT_FACILITY,
        EventCode.EVENT_CODE_DEPARTED_FACILITY,
        EventCode.EVENT_CODE_DAMAGED,
        EventCode.EVENT_CODE_ARRIVED_AT_FACILITY,
        EventCode.EVENT_CODE_DELIVERED,
    )
    for number, code in enumerate(codes):
        place, at_ms = f"F-{number}", NOON_MS + number
        scan = scan_event(
            str(number), waybill, code=code, facility_code=place, occurred_at_ms=at_ms
        )
        await caller.append(scan)
    past = await told(watch(caller, filter=wanted, start=start_from(START_FROM_EARLIEST)))
    heard = [change for message in past for change in message.changes.changes]
    assert [change.event.event_id for change in heard] == ["0", "1", "3", "5"]
    now: list[Any] = []
    async with asyncio.timeout(20):
        while len(now) < len(heard):
            now += (await live.read()).changes.changes
    live.cancel()
    assert now == heard


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"waybill_numbers": ["!"]}, "filter.waybill_numbers", "INVALID_WAYBILL_NUMBER"),
        ({"waybill_numbers": ["SF12"] * 1_001}, "filter.waybill_numbers", "INVALID_FIELD"),
        ({"facility_codes": ["A"] * 1_001}, "filter.facility_codes", "INVALID_FIELD"),
        ({"facility_codes": ["x" * 33]}, "filter.facility_codes", "INVALID_FIELD"),
        ({"milestones": [99]}, "filter.milestones", "INVALID_FIELD"),
        ({"flags": [0]}, "filter.flags", "INVALID_FIELD"),
        ({"account_ids": ["a"]}, "filter.account_ids", "INVALID_FIELD"),
    ],
)
async def test_filters_that_cannot_be_used_are_refused(
    caller: Caller, fields: dict[str, Any], field: str, reason: str
) -> None:
    """With the field at fault."""
    refusal = await refused(watch(caller, filter=ChangeFilter(**fields)).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.metadata["field"] == field
    call: Any = caller.channel.unary_stream("/trackd.v1.FeedService/WatchChanges")
    refusal = await refused(call(b"\xff").read())
    assert refusal.reason == "MALFORMED_REQUEST"
    refusal = await refused(watch(caller, start=start_from(99)).read())
    assert refusal.reason == "INVALID_ARGUMENT"


@pytest.fixture
async def short(tmp_path: Path) -> AsyncIterator[tuple[ServerProcess, Caller]]:
    """A server that keeps changes for a second, writes statuses back at once, lets two watch."""
    flags = ("--partitions", "2", "--feed-retention-age-s", "1", "--write-back-events-max", "1000")
    bounds = ("--feed-watches-max", "2", "--feed-heartbeat-s", "0.2")
    server = ServerProcess(tmp_path / "data", *flags, *bounds)
    await asyncio.to_thread(server.start)
    caller = Caller(server.grpc)
    yield server, caller
    await caller.channel.close()
    server.kill()


async def test_an_expired_token_names_the_oldest(short: tuple[ServerProcess, Caller]) -> None:
    """OUT_OF_RANGE with a token that works; the last place before what was let go still does."""
    server, caller = short
    old = await a_token(caller)
    for number in range(3):
        await caller.append(*(scan_event(f"{number}-{n}", f"EXPIRE-{n}") for n in range(20)))
    await asyncio.to_thread(server.stop)  # writes the statuses back: nothing needs the log now
    await asyncio.to_thread(server.start)
    caller = Caller(server.grpc)
    await asyncio.sleep(1.5)
    refusal = await refused(watch(caller, start=FeedStart(resume_token=old)).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_EXPIRED")
    oldest = refusal.metadata["oldest_resume_token"]
    again = await told(watch(caller, start=FeedStart(resume_token=oldest)))
    earliest = await told(watch(caller, start=start_from(START_FROM_EARLIEST)))
    assert again == earliest
    await caller.channel.close()


async def test_one_watch_too_many_comes_back_later(short: tuple[ServerProcess, Caller]) -> None:
    """RESOURCE_EXHAUSTED with a delay; heartbeats go on, with tokens; one that goes is room."""
    _, caller = short
    watches = [watch(caller) for _ in range(2)]
    for each in watches:
        assert (await each.read()).HasField("caught_up")
    refusal = await refused(watch(caller).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    for _ in range(2):
        async with asyncio.timeout(10):
            heartbeat = await watches[0].read()
        assert heartbeat.HasField("caught_up")
        assert heartbeat.resume_token
    watches[1].cancel()
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await watch(caller).read()).HasField("caught_up")
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
    watches[0].cancel()
