"""Data to read: waybills that are known to the server, and what must be answered about them.

Waybills 0 to `TIMELINES` have 15 events each, a minute apart; all others below `known_waybills` at
least one.
"""

import random
from functools import partial
from itertools import pairwise
from typing import Any

from bench.batches import BatchMaker, Mix, waybill_number
from bench.load import Load, Sent, WrongAnswer, send
from bench.lookups import BATCH_GET_STATUS, GET_STATUS, GET_TIMELINE, Ask, Channels
from trackd.v1.tracking_pb2 import (
    BatchGetStatusRequest,
    BatchGetStatusResponse,
    GetStatusResponse,
    GetTimelineResponse,
)

TIMELINES = 2_000
TIMELINE_EVENTS = 15
BATCH_WAYBILLS = 100
_STEP_MS = 60_000
_VERIFY_WAYBILLS = 500
# Parsing every answer would make the client the bottleneck.
_PARSED_PART = 1 / 16


async def make_known(address: str, mix: Mix, *, waybills: int, now_ms: int) -> Sent:
    """Sends the events that make `waybills` waybills known. Raises WrongAnswer."""
    maker = BatchMaker(mix)
    size = mix.events_per_batch
    first_ms = now_ms - TIMELINE_EVENTS * _STEP_MS

    def batch(at_ms: int, start: int, stop: int, _: int) -> bytes:
        return maker.make_for([start + index % (stop - start) for index in range(size)], at_ms)

    batches = [
        partial(batch, first_ms + step * _STEP_MS, start, start + size)
        for step in range(TIMELINE_EVENTS)
        for start in range(0, TIMELINES, size)
    ]
    batches += [
        partial(batch, now_ms, start, min(start + size, waybills))
        for start in range(TIMELINES, waybills, size)
    ]
    # One connection: the events of a timeline arrive in order.
    load = Load(seconds=float("inf"), connections=1, in_flight=64)
    sent = await send(address, maker, load, batches=batches)
    sent.check(repeated=0)
    return sent


class Questions:
    """Reads about known waybills, drawn at random, with the checks of their answers."""

    def __init__(self, *, waybills: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._waybills = waybills
        self.get_status = Ask(GET_STATUS, self._status_request, self._check_status)
        self.get_timeline = Ask(GET_TIMELINE, self._timeline_request, self._check_timeline)
        self.batch_get_status = Ask(BATCH_GET_STATUS, self._batch_request, self._check_batch)

    def _status_request(self) -> bytes:
        return _of_waybill(int(self._random.random() * self._waybills))

    def _check_status(self, request: bytes, answer: bytes) -> None:
        number = request[2:]
        if number not in answer:
            raise WrongAnswer(f"GetStatus of {number!r} answers without it")
        if self._random.random() < _PARSED_PART:
            status = GetStatusResponse.FromString(answer).status
            if status.waybill_number != number.decode() or status.event_count < 1:
                raise WrongAnswer(f"GetStatus of {number!r} answers {status}")

    def _timeline_request(self) -> bytes:
        return _of_waybill(int(self._random.random() * TIMELINES))

    def _check_timeline(self, request: bytes, answer: bytes) -> None:
        number = request[2:]
        if answer.count(number) < TIMELINE_EVENTS:
            raise WrongAnswer(f"GetTimeline of {number!r} is short: {len(answer)} bytes")
        if self._random.random() < _PARSED_PART:
            timeline = GetTimelineResponse.FromString(answer)
            times = [event.occurred_at_ms for event in timeline.events]
            steps = {after - before for before, after in pairwise(times)}
            if len(times) != TIMELINE_EVENTS or steps != {_STEP_MS}:
                raise WrongAnswer(f"GetTimeline of {number!r} answers events of {times}")
            if timeline.status.event_count != TIMELINE_EVENTS:
                raise WrongAnswer(f"GetTimeline of {number!r} answers {timeline.status}")

    def _batch_request(self) -> bytes:
        numbers = self._random.sample(range(self._waybills), BATCH_WAYBILLS)
        request = BatchGetStatusRequest(waybill_numbers=map(waybill_number, numbers))
        return request.SerializeToString()

    def _check_batch(self, request: bytes, answer: bytes) -> None:
        if self._random.random() < _PARSED_PART:
            asked = BatchGetStatusRequest.FromString(request).waybill_numbers
            told = BatchGetStatusResponse.FromString(answer).statuses
            if [status.waybill_number for status in told] != list(asked):
                raise WrongAnswer("BatchGetStatus answers other waybills than were asked for")


async def verify_counts(channels: Channels, *, waybills: int, events: int) -> None:
    """Raises WrongAnswer unless the timelines of all waybills hold so many events together."""
    counted = 0
    method: Any = channels[0].unary_unary(BATCH_GET_STATUS)
    for start in range(0, waybills, _VERIFY_WAYBILLS):
        numbers = map(waybill_number, range(start, min(start + _VERIFY_WAYBILLS, waybills)))
        request = BatchGetStatusRequest(waybill_numbers=numbers).SerializeToString()
        answer = BatchGetStatusResponse.FromString(await method(request))
        counted += sum(status.event_count for status in answer.statuses)
    if counted != events:
        raise WrongAnswer(f"{events} events were acknowledged, the statuses count {counted}")


def _of_waybill(index: int) -> bytes:
    """A GetStatusRequest or GetTimelineRequest: both hold the number in field 1, nothing else."""
    number = waybill_number(index).encode()
    return bytes((0x0A, len(number))) + number
