"""TrackingService over a real socket: statuses, look-ups of many, timelines, positions, errors."""

import base64
from typing import Any

import grpc
import pytest

from tests.wire.caller import NOON_MS, Caller, reads, refused, scan_event
from tests.wire.encodings import DELIMITED, field, text
from trackd.domain.vocabulary import EventCode, Reason
from trackd.v1.tracking_pb2 import (
    TIMELINE_ORDER_NEWEST_FIRST,
    TIMELINE_ORDER_OLDEST_FIRST,
    TIMELINE_ORDER_UNSPECIFIED,
    BatchGetStatusRequest,
    GetTimelineRequest,
)
from trackd.v1.vocabulary_pb2 import Flag, Milestone

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT


# Statuses.


async def test_a_status_says_where_it_is_and_what_is_wrong(caller: Caller, waybill: str) -> None:
    """Milestone, flags in ascending order, the event that put it there, and its times."""
    events = [
        scan_event("1", waybill, facility_code="HUB1"),
        scan_event("2", waybill, code=int(EventCode.DAMAGED), occurred_at_ms=NOON_MS + 1),
        scan_event(
            "3",
            waybill,
            code=int(EventCode.DELIVERY_ATTEMPT_FAILED),
            occurred_at_ms=NOON_MS + 2,
            reason=int(Reason.ADDRESS_WRONG),
        ),
        scan_event("4", waybill, code=int(EventCode.HELD), occurred_at_ms=NOON_MS + 3),
    ]
    for event in events:
        await caller.append(event)
    status = await caller.status(waybill)
    assert status.waybill_number == waybill
    assert status.milestone == Milestone.MILESTONE_DELIVERY_ATTEMPT_FAILED
    assert list(status.flags) == [Flag.FLAG_DAMAGED, Flag.FLAG_HELD, Flag.FLAG_ADDRESS_PROBLEM]
    assert status.last_event.event_id == "3"
    assert (status.event_count, status.first_event_at_ms) == (4, NOON_MS)
    timeline = await caller.tracking.GetTimeline(GetTimelineRequest(waybill_number=waybill))
    assert timeline.status == status
    assert status.updated_at_ms == timeline.events[-1].recorded_at_ms
    recorded = [event.recorded_at_ms for event in timeline.events]
    assert recorded == sorted(recorded)


async def test_a_late_event_is_in_the_timeline_and_does_not_move_the_status(
    caller: Caller, waybill: str
) -> None:
    """In its place in time; the count and the first time follow it."""
    await caller.append(scan_event("b", waybill, code=int(EventCode.OUT_FOR_DELIVERY)))
    before = await caller.status(waybill)
    await caller.append(scan_event("a", waybill, occurred_at_ms=NOON_MS - 5))
    after = await caller.status(waybill)
    assert (after.milestone, after.last_event) == (before.milestone, before.last_event)
    assert (after.event_count, after.first_event_at_ms) == (2, NOON_MS - 5)
    assert after.updated_at_ms == before.updated_at_ms
    assert await caller.event_ids(waybill) == ["a", "b"]


async def test_a_void_takes_the_status_back(caller: Caller, waybill: str) -> None:
    """Both events stay in the timeline."""
    await caller.append(
        scan_event("a", waybill),
        scan_event("b", waybill, code=int(EventCode.DELIVERED), occurred_at_ms=NOON_MS + 1),
    )
    assert (await caller.status(waybill)).milestone == Milestone.MILESTONE_DELIVERED
    void = int(EventCode.EVENT_VOIDED)
    await caller.append(
        scan_event("v", waybill, code=void, occurred_at_ms=NOON_MS + 2, attributes={"voids": "b"})
    )
    status = await caller.status(waybill)
    assert status.milestone == Milestone.MILESTONE_IN_TRANSIT
    assert status.last_event.event_id == "a"
    assert await caller.event_ids(waybill) == ["a", "b", "v"]


# Who is not known, and what is no number.


async def test_an_unknown_waybill_is_not_found(caller: Caller, waybill: str) -> None:
    """NOT_FOUND / WAYBILL_NOT_FOUND with the number; in a look-up of many it is just missing."""
    found = reads(caller, f" {waybill.lower()}")
    batch = await found.pop("BatchGetStatus")
    assert (list(batch.statuses), list(batch.missing_waybill_numbers)) == ([], [waybill])
    for call in found.values():
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.NOT_FOUND,
            "WAYBILL_NOT_FOUND",
        )
        assert refusal.metadata == {"waybill_number": waybill}
        assert refusal.fields == []


@pytest.mark.parametrize("number", ["", "SF1", "A" * 41, "SF 12", "运单1234", "SF12\x00"])
async def test_what_is_no_number_is_refused(caller: Caller, number: str) -> None:
    """INVALID_ARGUMENT names the field and what would be right."""
    for name, call in reads(caller, number).items():
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (INVALID_ARGUMENT, "INVALID_WAYBILL_NUMBER")
        field_name = "waybill_numbers" if name == "BatchGetStatus" else "waybill_number"
        assert refusal.fields == [field_name]
        assert "4-40" in refusal.message


# Many at once.


async def test_many_statuses_come_in_the_order_of_the_request(caller: Caller, waybill: str) -> None:
    """Repeats are answered once, in whatever way the number is written; so are the missing ones."""
    numbers = [f"{waybill}-{n}" for n in range(6)]
    for number in numbers[:4]:
        await caller.append(scan_event("a", number))
    asked = [numbers[3], numbers[5], f" {numbers[1].lower()}", numbers[3], numbers[4], numbers[1]]
    answer = await caller.tracking.BatchGetStatus(BatchGetStatusRequest(waybill_numbers=asked))
    assert [status.waybill_number for status in answer.statuses] == [numbers[3], numbers[1]]
    assert list(answer.missing_waybill_numbers) == [numbers[5], numbers[4]]


@pytest.mark.parametrize("count", [0, 501])
async def test_a_look_up_of_none_or_too_many_is_refused(
    caller: Caller, waybill: str, count: int
) -> None:
    """1 to 500 at a time, repeats counted."""
    request = BatchGetStatusRequest(waybill_numbers=[waybill] * count)
    refusal = await refused(caller.tracking.BatchGetStatus(request))
    assert (refusal.code, refusal.fields) == (INVALID_ARGUMENT, ["waybill_numbers"])
    assert "1-500" in refusal.message
    assert str(count) in refusal.message


async def test_five_hundred_are_looked_up_at_once(caller: Caller, waybill: str) -> None:
    """Over all partitions, each with its own event."""
    numbers = [f"{waybill}-{n}" for n in range(500)]
    await caller.append(*(scan_event(f"of {number}", number) for number in numbers))
    request = BatchGetStatusRequest(waybill_numbers=numbers)
    answer = await caller.tracking.BatchGetStatus(request)
    assert [status.waybill_number for status in answer.statuses] == numbers
    assert [status.last_event.event_id for status in answer.statuses] == [
        f"of {number}" for number in numbers
    ]


async def test_an_answer_that_would_be_too_large_is_refused(
    small_caller: Caller, waybill: str
) -> None:
    """RESPONSE_TOO_LARGE with the limit; asked for in parts everything comes."""
    numbers = [f"{waybill}-{n}" for n in range(8)]
    for number in numbers:
        wire = scan_event("a", number).SerializeToString() + text(18, "x" * 50_000)
        assert (await small_caller.append_bytes(field(1, DELIMITED, wire))).accepted == 1
    everything = BatchGetStatusRequest(waybill_numbers=numbers)
    refusal = await refused(small_caller.tracking.BatchGetStatus(everything))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RESPONSE_TOO_LARGE",
    )
    assert refusal.metadata == {"limit": str(256 << 10)}
    assert refusal.fields == ["waybill_numbers"]
    half = BatchGetStatusRequest(waybill_numbers=numbers[:4])
    assert len((await small_caller.tracking.BatchGetStatus(half)).statuses) == 4


# Timelines.


async def test_a_timeline_is_paged_in_both_orders(caller: Caller, waybill: str) -> None:
    """Unspecified is oldest first; each page says where to go on, the last one that it is."""
    await caller.append(
        *(scan_event(f"e{n}", waybill, occurred_at_ms=NOON_MS + n) for n in range(7))
    )
    for order, expected in (
        (TIMELINE_ORDER_UNSPECIFIED, "e0 e1 e2 e3 e4 e5 e6"),
        (TIMELINE_ORDER_OLDEST_FIRST, "e0 e1 e2 e3 e4 e5 e6"),
        (TIMELINE_ORDER_NEWEST_FIRST, "e6 e5 e4 e3 e2 e1 e0"),
    ):
        request = GetTimelineRequest(waybill_number=waybill, order=order, page_size=3)
        found: list[str] = []
        sizes: list[int] = []
        while not sizes or request.page_token:
            page = await caller.tracking.GetTimeline(request)
            found += [event.event_id for event in page.events]
            sizes.append(len(page.events))
            request.page_token = page.next_page_token
            assert page.status.event_count == 7
        assert (" ".join(found), sizes) == (expected, [3, 3, 1])


async def test_events_of_one_millisecond_come_as_they_are_folded(
    caller: Caller, waybill: str
) -> None:
    """Along a parcel's way, whatever order they were sent in."""
    codes = [EventCode.DELIVERED, EventCode.PICKED_UP, EventCode.OUT_FOR_DELIVERY, EventCode.SORTED]
    await caller.append(*(scan_event(code.name, waybill, code=int(code)) for code in codes))
    in_order = [code.name for code in sorted(codes)]
    assert await caller.event_ids(waybill) == in_order


async def test_a_page_token_goes_on_where_it_was_while_new_events_arrive(
    caller: Caller, waybill: str
) -> None:
    """Nothing is shown twice or left out; what comes in behind the token is shown."""
    await caller.append(
        *(scan_event(f"e{n}", waybill, occurred_at_ms=NOON_MS + 10 * n) for n in range(4))
    )
    request = GetTimelineRequest(waybill_number=waybill, page_size=2)
    page = await caller.tracking.GetTimeline(request)
    assert [event.event_id for event in page.events] == ["e0", "e1"]
    await caller.append(
        scan_event("before", waybill, occurred_at_ms=NOON_MS + 5),
        scan_event("behind", waybill, occurred_at_ms=NOON_MS + 15),
    )
    request.page_token, request.page_size = page.next_page_token, 500
    rest = await caller.tracking.GetTimeline(request)
    assert [event.event_id for event in rest.events] == ["behind", "e2", "e3"]
    assert not rest.next_page_token


async def test_a_hundred_events_are_a_page_if_nothing_is_said(caller: Caller, waybill: str) -> None:
    """Page sizes are 1 to 500, 0 is the default; anything else is refused with the limit."""
    await caller.append(
        *(scan_event(f"e{n}", waybill, occurred_at_ms=NOON_MS + n) for n in range(501))
    )
    for size, found in ((0, 100), (1, 1), (500, 500)):
        request = GetTimelineRequest(waybill_number=waybill, page_size=size)
        assert len((await caller.tracking.GetTimeline(request)).events) == found
    for size in (-1, 501, 2**31 - 1):
        request = GetTimelineRequest(waybill_number=waybill, page_size=size)
        refusal = await refused(caller.tracking.GetTimeline(request))
        assert (refusal.code, refusal.fields) == (INVALID_ARGUMENT, ["page_size"])
        assert "500" in refusal.message


async def test_an_order_that_is_none_is_refused(caller: Caller, waybill: str) -> None:
    """Not taken for one of the two."""
    await caller.append(scan_event("a", waybill))
    request = GetTimelineRequest(waybill_number=waybill, order=7)  # type: ignore[arg-type]
    refusal = await refused(caller.tracking.GetTimeline(request))
    assert (refusal.code, refusal.fields) == (INVALID_ARGUMENT, ["order"])


async def test_a_page_is_no_larger_than_an_answer_may_be(
    small_caller: Caller, waybill: str
) -> None:
    """It is cut short, with a token for the rest; the whole history comes all the same."""
    for n in range(12):
        event = scan_event(f"e{n}", waybill, occurred_at_ms=NOON_MS + n)
        wire = event.SerializeToString() + text(18, "x" * 50_000)
        await small_caller.append_bytes(field(1, DELIMITED, wire))
    request = GetTimelineRequest(waybill_number=waybill, page_size=500)
    found, pages = [], 0
    while not pages or request.page_token:
        page = await small_caller.tracking.GetTimeline(request)
        assert page.ByteSize() <= 256 << 10
        found += [event.event_id for event in page.events]
        pages += 1
        request.page_token = page.next_page_token
    assert found == [f"e{n}" for n in range(12)]
    assert pages == 6


async def page_token(caller: Caller, waybill: str) -> str:
    """A token of a timeline with more than a page, oldest first."""
    await caller.append(
        *(scan_event(f"e{n}", waybill, occurred_at_ms=NOON_MS + n) for n in range(3))
    )
    request = GetTimelineRequest(waybill_number=waybill, page_size=1)
    page = await caller.tracking.GetTimeline(request)
    assert page.next_page_token
    return page.next_page_token


async def test_a_page_token_is_bound_to_its_query(caller: Caller, waybill: str) -> None:
    """Another waybill or the other order: INVALID_PAGE_TOKEN. The page size may change."""
    token = await page_token(caller, waybill)
    await caller.append(scan_event("a", f"{waybill}-0"))
    other = GetTimelineRequest(waybill_number=f"{waybill}-0", page_token=token)
    back = GetTimelineRequest(
        waybill_number=waybill, order=TIMELINE_ORDER_NEWEST_FIRST, page_token=token
    )
    for request in (other, back):
        refusal = await refused(caller.tracking.GetTimeline(request))
        assert (refusal.code, refusal.reason) == (INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")
        assert refusal.fields == ["page_token"]
    same = GetTimelineRequest(waybill_number=waybill, page_size=7, page_token=token)
    assert len((await caller.tracking.GetTimeline(same)).events) == 2


async def test_what_is_no_page_token_is_refused(caller: Caller, waybill: str) -> None:
    """Garbage, a part of one, one with something behind it."""
    token = await page_token(caller, waybill)
    decoded = base64.urlsafe_b64decode(token)
    longer = base64.urlsafe_b64encode(decoded + b"\x00").decode()
    shorter = base64.urlsafe_b64encode(decoded[:-1]).decode()
    for garbage in ("x", "====", "é", token[:-1], token + "A", f" {token}", longer, shorter):
        request = GetTimelineRequest(waybill_number=waybill, page_token=garbage)
        refusal = await refused(caller.tracking.GetTimeline(request))
        assert (refusal.code, refusal.reason) == (INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


async def test_a_page_token_that_was_tampered_with_shows_nothing_else(
    caller: Caller, waybill: str
) -> None:
    """Whatever place it names, the page holds events of its own waybill only."""
    token = await page_token(caller, waybill)
    decoded = bytearray(base64.urlsafe_b64decode(token))
    for place in range(9, len(decoded)):
        for byte in (0x00, 0xFF):
            changed = decoded[:place] + bytes((byte,)) + decoded[place + 1 :]
            request = GetTimelineRequest(
                waybill_number=waybill, page_token=base64.urlsafe_b64encode(changed).decode()
            )
            page = await caller.tracking.GetTimeline(request)
            assert {event.waybill_number for event in page.events} <= {waybill}
            assert page.status.event_count == 3


async def test_a_request_that_cannot_be_parsed_is_refused(caller: Caller) -> None:
    """By every read."""
    for method in ("GetStatus", "BatchGetStatus", "GetTimeline"):
        call: Any = caller.channel.unary_unary(f"/trackd.v1.TrackingService/{method}")
        for garbage in (b"\xff", b"\x0a\x02\xff\xfe", b"\x0a\x05a"):
            refusal = await refused(call(garbage))
            assert (refusal.code, refusal.reason) == (INVALID_ARGUMENT, "MALFORMED_REQUEST")
