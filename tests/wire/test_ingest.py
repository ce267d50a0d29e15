"""IngestService over a real socket: what an answer means, what is refused, what never blocks."""

import asyncio
import time
from collections.abc import Awaitable
from random import Random
from typing import Any

import grpc
import pytest

from tests.wire.caller import NOON_MS, Caller, Refusal, outcome, refused, scan_event
from tests.wire.encodings import DELIMITED, Encoder, field, text
from trackd.domain.vocabulary import EventCode, Reason
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.ingest_pb2 import AppendEventsRequest, StreamEventsResponse
from trackd.v1.tracking_pb2 import GetTimelineRequest
from trackd.v1.vocabulary_pb2 import RejectionReason


async def test_an_answer_means_that_reads_see_it(caller: Caller, waybill: str) -> None:
    """At once, by any call, without a position being handed in."""
    answer = await caller.append(scan_event("a", waybill), scan_event("b", waybill))
    assert (answer.accepted, answer.duplicates, list(answer.rejections)) == (2, 0, [])
    assert (await caller.status(waybill)).event_count == 2
    assert sorted(await caller.event_ids(waybill)) == ["a", "b"]
    assert (await caller.status(waybill, answer.position)).event_count == 2


async def test_numbers_are_stripped_and_upper_cased(caller: Caller, waybill: str) -> None:
    """However they are written, it is one waybill, and it is shown in its normal form."""
    written = [waybill, waybill.lower(), f"  {waybill}\t\n", f"\u3000{waybill.lower()} "]
    answer = await caller.append(*(scan_event(f"e{n}", each) for n, each in enumerate(written)))
    assert answer.accepted == 4
    again = await caller.append(*(scan_event(f"e{n}", waybill) for n in range(4)))
    assert again.duplicates == 4
    assert (await caller.status(waybill.lower())).waybill_number == waybill
    timeline = await caller.tracking.GetTimeline(GetTimelineRequest(waybill_number=f" {waybill}"))
    assert {event.waybill_number for event in timeline.events} == {waybill}


async def test_the_server_says_when_it_recorded(caller: Caller, waybill: str) -> None:
    """What the sender says about that is ignored, and is no difference between repeats."""
    before = time.time_ns() // 1_000_000
    await caller.append(scan_event("a", waybill, recorded_at_ms=5))
    status = await caller.status(waybill)
    after = time.time_ns() // 1_000_000
    assert before <= status.last_event.recorded_at_ms == status.updated_at_ms <= after
    for recorded_at_ms in (0, 7, 2**62):
        repeat = await caller.append(scan_event("a", waybill, recorded_at_ms=recorded_at_ms))
        assert repeat.duplicates == 1


async def test_everything_an_event_holds_comes_back(caller: Caller, waybill: str) -> None:
    """Every field of the contract, and what a newer sender knows besides."""
    event = scan_event(
        "a",
        waybill,
        code=int(EventCode.DELIVERED),
        facility_code="上海",
        next_facility_code="HUB2",
        device_id="gun-1",
        operator_id="007",
        reason=int(Reason.WEATHER),
        remark="签收 — wet",
        location={"latitude": 31.2, "longitude": -121.4},
        container_number="BAG-1",
        receipt={"received_by": 3, "consent_reference": "c", "proof_sha256": "0f" * 32},
        source_system="WMS",
        source_code="80",
        attributes={"k": "v", "名": "值"},
    )
    unknown = text(18, "from the future")
    wire = event.SerializeToString() + unknown
    assert (await caller.append_bytes(field(1, DELIMITED, wire))).accepted == 1
    timeline = await caller.tracking.GetTimeline(GetTimelineRequest(waybill_number=waybill))
    (found,) = timeline.events
    assert unknown in found.SerializeToString()
    found.ClearField("recorded_at_ms")
    found.DiscardUnknownFields()
    assert found == event


# Repeats.


async def test_repeats_are_counted_wherever_they_come(caller: Caller, waybill: str) -> None:
    """In the batch, in another call, in a stream, in the same stream; they are as fresh as it."""
    event = scan_event("a", waybill)
    first = await caller.append(event, event)
    assert (first.accepted, first.duplicates) == (1, 1)
    stream = caller.stream()
    await stream.send("1", event)
    await stream.send("2", event, event)
    answers = await stream.end()
    assert [(each.accepted, each.duplicates) for each in answers] == [(0, 1), (0, 2)]
    assert (await caller.status(waybill, answers[-1].position)).event_count == 1


async def test_other_content_under_one_id_is_a_conflict(caller: Caller, waybill: str) -> None:
    """The first stays; the rejection says which event of the batch, and which field."""
    await caller.append(scan_event("a", waybill))
    answer = await caller.append(
        scan_event("b", waybill), scan_event("a", waybill, remark="other"), scan_event("c", waybill)
    )
    (rejection,) = answer.rejections
    assert answer.accepted == 2
    assert (rejection.index, rejection.field) == (1, "event_id")
    assert rejection.reason == RejectionReason.REJECTION_REASON_CONFLICT
    assert "'a'" in rejection.message
    assert (await caller.status(waybill)).event_count == 3


async def test_one_scan_sent_from_many_sides_at_once_is_stored_once(
    caller: Caller, waybill: str
) -> None:
    """Twenty calls and streams race; one of them is told that it was the first."""
    event = scan_event("a", waybill)

    async def by_stream() -> StreamEventsResponse:
        stream = caller.stream()
        await stream.send("", event)
        (answer,) = await stream.end()
        return answer

    calls: list[Awaitable[Any]] = [caller.append(event) for _ in range(10)]
    calls += [by_stream() for _ in range(10)]
    answers = await asyncio.gather(*calls)
    assert sum(answer.accepted for answer in answers) == 1
    assert sum(answer.duplicates for answer in answers) == 19


# Bounds of a batch.


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_batch_of_none_or_too_many_is_refused_whole(
    caller: Caller, waybill: str, count: int
) -> None:
    """INVALID_ARGUMENT names the limit and the field; nothing of it is stored."""
    events = [scan_event(f"e{n}", waybill) for n in range(count)]
    refusal = await refused(caller.append(*events))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_ARGUMENT",
    )
    assert "1-1000" in refusal.message
    assert str(count) in refusal.message
    assert refusal.fields == ["events"]
    assert refusal.retry_after_s is None
    assert await caller.event_ids(waybill) == []


async def test_a_batch_of_the_most_events_is_stored(caller: Caller, waybill: str) -> None:
    """1,000, over all partitions."""
    answer = await caller.append(*(scan_event("e", f"{waybill}-{n}") for n in range(1_000)))
    assert answer.accepted == 1_000
    assert (await caller.status(f"{waybill}-999", answer.position)).event_count == 1


async def test_a_message_has_an_end(caller: Caller, waybill: str) -> None:
    """1 MiB; beyond it the call ends, and the server is there for the next one."""
    huge = AppendEventsRequest(events=[scan_event("a", waybill, remark="x" * (1 << 20))])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await caller.ingest.AppendEvents(huge)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await caller.append(scan_event("a", waybill))).accepted == 1


# Bad events.


def one_of_each(waybill: str) -> dict[str, ScanEvent]:
    """An event for every reason, by the field that the rejection names."""
    return {
        "waybill_number": scan_event("a", "no number"),
        "event_id": scan_event("", waybill),
        "code": scan_event("a", waybill, code=77),
        "occurred_at_ms": scan_event("a", waybill, occurred_at_ms=5),
        "remark": scan_event("a", waybill, remark="x" * 501),
        "facility_code": scan_event("a", waybill, facility_code="a\nb"),
        'attributes["voids"]': scan_event("a", waybill, code=int(EventCode.EVENT_VOIDED)),
    }


async def test_each_bad_event_comes_back_with_index_reason_field_and_message(
    caller: Caller, waybill: str
) -> None:
    """The good ones between them are stored; rejections are in the order of the batch."""
    bad = one_of_each(waybill)
    events = []
    for n, event in enumerate(bad.values()):
        events += [scan_event(f"good-{n}", waybill), event]
    answer = await caller.append(*events)
    assert answer.accepted == len(bad)
    assert [rejection.index for rejection in answer.rejections] == list(range(1, 14, 2))
    assert [rejection.field for rejection in answer.rejections] == list(bad)
    reasons = [int(rejection.reason) for rejection in answer.rejections]
    assert reasons == [1, 2, 3, 4, 5, 6, 6]
    assert all(rejection.message for rejection in answer.rejections)
    assert len(await caller.event_ids(waybill)) == len(bad)


async def test_a_time_may_be_a_little_ahead_of_the_server(caller: Caller, waybill: str) -> None:
    """Ten minutes, as clocks differ; not more."""
    now_ms = time.time_ns() // 1_000_000
    answer = await caller.append(
        scan_event("soon", waybill, occurred_at_ms=now_ms + 590_000),
        scan_event("later", waybill, occurred_at_ms=now_ms + 660_000),
    )
    assert answer.accepted == 1
    ((index, field_name),) = [(each.index, each.field) for each in answer.rejections]
    assert (index, field_name) == (1, "occurred_at_ms")


async def test_a_batch_of_nothing_but_bad_events_is_answered(caller: Caller, waybill: str) -> None:
    """It is as fresh as nothing, and the stream goes on behind it."""
    stream = caller.stream()
    for n, event in enumerate(one_of_each(waybill).values()):
        await stream.send(f"{n}", event)
    await stream.send("good", scan_event("good", waybill))
    *bad, good = await stream.end()
    assert [len(answer.rejections) for answer in bad] == [1] * len(bad)
    assert {answer.position for answer in bad} == {""}
    assert (good.batch_id, good.accepted) == ("good", 1)


@pytest.mark.parametrize(
    "bad",
    [
        text(1, "a") + field(2, DELIMITED, b"\xff\xfe"),
        text(1, "a") + text(2, "SF0001") + field(10, DELIMITED, b"\xc3"),
        b"\xff\xff\xff",
        text(1, "a")[:-1],
    ],
    ids=["number", "remark", "garbage", "cut"],
)
async def test_an_event_that_cannot_be_parsed_is_rejected_alone(
    caller: Caller, waybill: str, bad: bytes
) -> None:
    """Invalid UTF-8 or garbage in one event of a batch, in a call and in a stream."""
    good = [scan_event(f"g{n}", waybill).SerializeToString() for n in range(2)]
    request = b"".join(field(1, DELIMITED, wire) for wire in (good[0], bad, good[1]))
    answer = await caller.append_bytes(request)
    assert answer.accepted == 2
    ((index, field_name),) = [(each.index, each.field) for each in answer.rejections]
    assert (index, field_name) == (1, "event")

    call: Any = caller.channel.stream_stream("/trackd.v1.IngestService/StreamEvents")()
    message = b"".join(field(2, DELIMITED, wire) for wire in (good[0], bad, good[1]))
    await call.write(text(1, "batch") + message)
    await call.done_writing()
    (raw,) = [each async for each in call]
    streamed = StreamEventsResponse.FromString(raw)
    assert (streamed.batch_id, streamed.duplicates) == ("batch", 2)
    assert [rejection.index for rejection in streamed.rejections] == [1]


async def test_a_request_that_cannot_be_parsed_is_refused(caller: Caller, waybill: str) -> None:
    """Whatever bytes come, the caller is told, and the server is there for the next one."""
    rng = Random(3)
    told = []
    for _ in range(200):
        data = bytearray(
            AppendEventsRequest(events=[scan_event("a", waybill)] * 3).SerializeToString()
        )
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        result = await outcome(caller.append_bytes(bytes(data[: rng.randint(1, len(data))])))
        if isinstance(result, Refusal):
            told.append(result)
    assert len(told) > 20
    assert {refusal.code for refusal in told} == {grpc.StatusCode.INVALID_ARGUMENT}
    reasons = {refusal.reason for refusal in told}
    assert "MALFORMED_REQUEST" in reasons
    assert reasons <= {"MALFORMED_REQUEST", "INVALID_ARGUMENT"}  # the latter for no events left
    assert (await caller.append(scan_event("fine", waybill))).accepted == 1


async def test_odd_encodings_are_served(caller: Caller) -> None:
    """Thousands of events in encodings that no library makes: each is accepted, or rejected."""
    encoder = Encoder(Random(5))
    answers = []
    for _ in range(20):
        wires = [encoder.odd() for _ in range(200)]
        answers.append(
            await caller.append_bytes(b"".join(field(1, DELIMITED, wire) for wire in wires))
        )
    for answer in answers:
        assert answer.accepted + answer.duplicates + len(answer.rejections) == 200
    assert {each.reason for answer in answers for each in answer.rejections} >= set(range(1, 8))


# Small bounds.


async def test_a_call_too_many_is_told_to_come_back(small_caller: Caller, waybill: str) -> None:
    """With one append at work at most: RESOURCE_EXHAUSTED, the limit, and when to try again."""
    calls = [small_caller.append(scan_event(f"e{n}", waybill)) for n in range(30)]
    results = await asyncio.gather(*map(outcome, calls))
    refusals = [result for result in results if isinstance(result, Refusal)]
    stored = [result.accepted for result in results if not isinstance(result, Refusal)]
    assert set(stored) == {1}
    assert refusals
    for refusal in refusals:
        assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (refusal.reason, refusal.metadata) == ("OVERLOADED", {"limit": "1"})
        assert refusal.retry_after_s
    assert len(await small_caller.event_ids(waybill)) == len(stored)


async def test_an_event_has_an_end(small_caller: Caller, waybill: str) -> None:
    """The largest that can be allowed is stored and comes back; one byte more is FIELD_TOO_LONG."""
    limit = 60 << 10
    small = scan_event("a", f" {waybill.lower()} ").SerializeToString()
    padding = limit - len(small) - 5
    largest = small + text(18, "x" * padding)
    assert len(largest) == limit
    assert (await small_caller.append_bytes(field(1, DELIMITED, largest))).accepted == 1
    (rejection,) = (
        await small_caller.append_bytes(field(1, DELIMITED, largest + text(18, "")))
    ).rejections
    assert (rejection.field, int(rejection.reason)) == ("event", 5)
    assert str(limit) in rejection.message
    status = await small_caller.status(waybill)
    assert status.last_event.ByteSize() > limit


async def test_a_waybill_has_a_last_event(small_caller: Caller, waybill: str) -> None:
    """One more is INVALID_FIELD with the limit; repeats of the others are still repeats."""
    events = [scan_event(f"e{n}", waybill, occurred_at_ms=NOON_MS + n) for n in range(101)]
    answer = await small_caller.append(*events)
    assert answer.accepted == 100
    (rejection,) = answer.rejections
    assert (rejection.index, rejection.field) == (100, "waybill_number")
    assert "at most 100" in rejection.message
    assert (await small_caller.append(*events[:100])).duplicates == 100
