"""StreamEvents over a real socket: one answer a batch, in order, whoever else is at work."""

import asyncio
from random import Random

import grpc
import pytest

from tests.harness.server import ServerProcess
from tests.wire.caller import Caller, scan_event, stream_at_once
from trackd.v1.ingest_pb2 import StreamEventsRequest


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_bad_batch_ends_a_stream_and_the_answers_before_it_stand(
    server: ServerProcess, caller: Caller, waybill: str, count: int
) -> None:
    """Batches before it are answered; neither it nor what was sent behind it is stored."""

    def batch(batch_id: str, *ids: str) -> StreamEventsRequest:
        events = [scan_event(event_id, waybill) for event_id in ids]
        return StreamEventsRequest(batch_id=batch_id, events=events)

    batches = [batch(f"{n}", f"good-{n}") for n in range(5)]
    batches += [batch("bad", *(f"bad-{n}" for n in range(count))), batch("behind", "behind")]
    answers, refusal = await asyncio.to_thread(stream_at_once, server.grpc, batches)
    assert [answer.batch_id for answer in answers] == list("01234")
    assert all(answer.accepted == 1 for answer in answers)
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "1-1000" in refusal.message
    assert refusal.fields == ["events"]
    assert sorted(await caller.event_ids(waybill)) == [f"good-{n}" for n in range(5)]


async def test_a_batch_id_has_an_end(caller: Caller, waybill: str) -> None:
    """64 characters come back as they are, 65 end the call."""
    stream = caller.stream()
    await stream.send("包" * 64, scan_event("a", waybill))
    assert (await stream.answer()).batch_id == "包" * 64
    await stream.send("x" * 65, scan_event("b", waybill))
    _, refusal = await stream.refusal()
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["batch_id"])
    assert "64" in refusal.message


async def test_many_batches_in_flight_are_answered_in_the_order_sent(
    caller: Caller, waybill: str
) -> None:
    """300 batches of all sizes, sent without reading an answer; one answer each."""
    rng = Random(1)
    stream = caller.stream()
    sizes = [rng.choice([1, 1, 2, 10, 100]) for _ in range(300)]

    async def send() -> None:
        for n, size in enumerate(sizes):
            events = [scan_event(f"{n}-{k}", f"{waybill}-{k % 7}") for k in range(size)]
            await stream.send(f"{n}", *events)
        await stream.call.done_writing()

    sending = asyncio.ensure_future(send())
    answers = await stream.rest()
    await sending
    assert [answer.batch_id for answer in answers] == [str(n) for n in range(300)]
    assert [answer.accepted for answer in answers] == sizes


async def test_several_streams_do_not_wait_for_each_other(caller: Caller, waybill: str) -> None:
    """One that is idle, one whose answers nobody reads, and one at work."""
    idle, unread, busy = caller.stream(), caller.stream(), caller.stream()
    await idle.send("", scan_event("idle", waybill))
    await idle.answer()
    for n in range(20):
        await unread.send(f"{n}", scan_event(f"unread-{n}", waybill))
    for n in range(20):
        await busy.send(f"{n}", scan_event(f"busy-{n}", waybill))
        assert (await busy.answer()).accepted == 1
    assert len(await unread.end()) == 20
    assert await busy.end() == []
    assert await idle.end() == []


async def test_a_stream_whose_caller_goes_away_does_no_harm(caller: Caller, waybill: str) -> None:
    """What was answered is there; the next stream sends the rest again."""
    stream = caller.stream()
    await stream.send("1", scan_event("a", waybill))
    await stream.answer()
    for n in range(50):
        await stream.send(f"{n}", scan_event(f"b{n}", waybill))
    stream.call.cancel()
    again = caller.stream()
    await again.send(
        "", scan_event("a", waybill), *(scan_event(f"b{n}", waybill) for n in range(50))
    )
    (answer,) = await again.end()
    assert answer.accepted + answer.duplicates == 51
    assert answer.duplicates >= 1
    assert (await caller.status(waybill)).event_count == 51


async def test_a_stream_of_nothing_ends_well(caller: Caller) -> None:
    """Opened and closed, without a batch."""
    assert await caller.stream().end() == []


async def test_a_stream_too_many_is_told_to_come_back(small_caller: Caller, waybill: str) -> None:
    """With two streams open at most; one that ends makes room."""
    first, second = small_caller.stream(), small_caller.stream()
    for stream in (first, second):
        await stream.send("", scan_event("a", waybill))
        await stream.answer()
    third = small_caller.stream()
    _, refusal = await third.refusal()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refusal.retry_after_s
    await first.end()
    fourth = small_caller.stream()
    await fourth.send("", scan_event("a", waybill))
    assert [answer.duplicates for answer in await fourth.end()] == [1]
    await second.end()


async def test_calls_beyond_what_a_connection_takes_wait_their_turn(
    caller: Caller, waybill: str
) -> None:
    """However many are made at once on one connection: each is answered, none is reset."""
    await caller.append(scan_event("0", waybill))  # the connection is there, and its limit known
    appended = await asyncio.gather(
        *(caller.append(scan_event(f"{n}", f"{waybill}-{n}")) for n in range(600))
    )
    assert sum(answer.accepted for answer in appended) == 600
    read = await asyncio.gather(*(caller.status(f"{waybill}-{n}") for n in range(600)))
    assert all(status.event_count == 1 for status in read)
