"""The client that sends scans: a few connections, each a stream of batches and their answers.

At a given rate it is open-loop: a batch is due at its place in an absolute schedule, whatever
happened to those before it, and its latency runs from when it was due, so a server that stands
still is charged for everything that should have been sent meanwhile. Without a rate every
connection keeps its window of unanswered batches full. Every answer is counted and checked.
"""

import asyncio
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from grpc import aio
from xxhash import xxh3_64_intdigest

from bench.batches import BatchMaker
from bench.latency import Latencies
from bench.together import together
from trackd.v1.admin_pb2 import GetTopologyResponse
from trackd.v1.ingest_pb2 import StreamEventsResponse

_STREAM_EVENTS = "/trackd.v1.IngestService/StreamEvents"
_GET_TOPOLOGY = "/trackd.v1.AdminService/GetTopology"
# Without it channels to one address share one connection.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
_ANSWERS_TIMEOUT_S = 60.0


class WrongAnswer(Exception):
    """The server answered something other than the truth, or did not answer."""


@dataclass(frozen=True, slots=True)
class Load:
    """How to send. rate: events per second, None for as many as the windows let through.

    It ends after `seconds`, or after `events` if that is given and comes first.
    """

    seconds: float
    connections: int = 8
    in_flight: int = 16
    rate: float | None = None
    events: int | None = None


@dataclass(slots=True)
class Sent:
    """What came of a load. Counts are events; `latencies` has one entry per batch.

    `lateness`: how late batches left this client, the part of their latency that is its own.
    `by_second`: the latencies of each second of the load, by when the answer came.
    """

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    seconds: float = 0.0
    generator_cpu_s: float = 0.0
    latencies: Latencies = field(default_factory=Latencies)
    lateness: Latencies = field(default_factory=Latencies)
    by_second: dict[int, Latencies] = field(default_factory=dict)

    @property
    def answered(self) -> int:
        """Events whose batch was answered."""
        return self.accepted + self.duplicates + self.rejected

    @property
    def rate(self) -> float:
        """Events answered per second, from the start until the last answer."""
        return self.answered / self.seconds

    def ack_p99_ms(self) -> list[tuple[float, float]]:
        """(second, p99 in ms) over the load."""
        return [
            (float(second), latencies.percentiles_ms()["p99"])
            for second, latencies in sorted(self.by_second.items())
        ]

    def check(self, *, repeated: int) -> None:
        """Raises WrongAnswer unless every event was answered, and as what it was."""
        if self.answered != self.sent:
            raise WrongAnswer(f"{self.sent} events were sent and {self.answered} answered")
        if self.rejected:
            raise WrongAnswer(f"{self.rejected} good events were rejected")
        if self.duplicates != repeated:
            raise WrongAnswer(f"{repeated} events were repeats, {self.duplicates} counted as such")


async def send(
    address: str,
    maker: BatchMaker,
    load: Load,
    *,
    batches: Iterable[Callable[[int], bytes]] | None = None,
    begun: asyncio.Event | None = None,
) -> Sent:
    """Sends a load to a server and waits for every answer. Raises WrongAnswer or aio.AioRpcError.

    batches: what makes each batch, given the time in ms; by default `maker.make`, without end.
    begun: set when the first batch is due. Finding the owners of all waybills comes before it, and
    takes this process seconds in which it does nothing else.
    """
    sent = Sent()
    schedule = _Schedule(maker, load, sent, batches)
    owners = await _owners(address)
    if len(owners.addresses) > 1 and batches is None:
        schedule.shares = len(owners.addresses)
        maker.share_out(owners.share_of, shares=schedule.shares)
    cpu_before = _own_cpu_s()
    connections = [
        _Connection(owners.addresses[number % len(owners.addresses)], number, schedule)
        for number in range(load.connections)
    ]
    try:
        await asyncio.gather(*(one.connect() for one in connections))
        schedule.begin()
        if begun:
            begun.set()
        await together(*(one.run() for one in connections))
        sent.seconds = schedule.last_answer_at - schedule.began_at
    finally:
        await asyncio.gather(*(one.close() for one in connections))
    sent.generator_cpu_s = _own_cpu_s() - cpu_before
    return sent


@dataclass(frozen=True, slots=True)
class _Owners:
    """Who owns which waybills. shares: the place in `addresses` by partition."""

    addresses: list[str]
    shares: list[int]

    def share_of(self, number: str) -> int:
        """The share of a waybill number, by the contract's hash."""
        return self.shares[xxh3_64_intdigest(number.encode()) % len(self.shares)]


async def _owners(address: str) -> _Owners:
    """The topology, as the client library asks for it."""
    async with aio.insecure_channel(address) as channel:
        method: Any = channel.unary_unary(_GET_TOPOLOGY)
        answer = GetTopologyResponse.FromString(await method(b"", wait_for_ready=True))
    addresses = sorted({partition.address for partition in answer.partitions})
    return _Owners(addresses, [addresses.index(one.address) for one in answer.partitions])


class _Schedule:
    """What is sent next, when, and until when; shared by the connections of one load."""

    def __init__(
        self,
        maker: BatchMaker,
        load: Load,
        sent: Sent,
        batches: Iterable[Callable[[int], bytes]] | None,
    ) -> None:
        self.load = load
        self.sent = sent
        self._maker = maker
        self._batches = None if batches is None else iter(batches)
        self.shares = 1
        self.began_at = self.last_answer_at = 0.0

    def begin(self) -> None:
        """Starts the clock."""
        self.began_at = self.last_answer_at = time.perf_counter()

    def due_at(self, connection: int, batch: int) -> float | None:
        """When a connection's n-th batch is due; None if that is whenever there is room."""
        if self.load.rate is None:
            return None
        place = batch * self.load.connections + connection
        return self.began_at + place * self._maker.events_per_batch / self.load.rate

    def next(self, at: float, connection: int) -> bytes | None:
        """A connection's next batch, at a moment of the clock; None when the load has ended."""
        events, sent = self.load.events, self.sent
        if at - self.began_at >= self.load.seconds or (events and sent.sent >= events):
            return None
        now_ms = time.time_ns() // 1_000_000
        if self._batches is None:
            batch = self._maker.make(now_ms, connection % self.shares)
        else:
            make = next(self._batches, None)
            if make is None:
                return None
            batch = make(now_ms)
        sent.sent += self._maker.events_per_batch
        return batch

    def batch_id(self) -> str:
        """The name of the batch just made."""
        return f"{self._maker.batches - 1:010d}"

    def answered(self, answer: StreamEventsResponse, since: float) -> None:
        """Counts an answer."""
        self.last_answer_at = time.perf_counter()
        second, latency = int(self.last_answer_at - self.began_at), self.last_answer_at - since
        self.sent.latencies.add(latency)
        self.sent.by_second.setdefault(second, Latencies()).add(latency)
        self.sent.accepted += answer.accepted
        self.sent.duplicates += answer.duplicates
        self.sent.rejected += len(answer.rejections)


class _Connection:
    """One connection and its stream."""

    def __init__(self, address: str, number: int, schedule: _Schedule) -> None:
        self._number = number
        self._schedule = schedule
        self._channel = aio.insecure_channel(address, options=OWN_CONNECTION)
        # None as serializers: bytes go and come as they are.
        self._call: Any = None
        self._unanswered: deque[tuple[str, float]] = deque()
        self._all_sent = False
        self._room = asyncio.Semaphore(schedule.load.in_flight)

    async def connect(self) -> None:
        """Opens the connection, so that no batch is charged for it."""
        await asyncio.wait_for(self._channel.channel_ready(), _ANSWERS_TIMEOUT_S)
        self._call = self._channel.stream_stream(_STREAM_EVENTS)()

    async def run(self) -> None:
        """Sends until the load ends, and waits for the answers."""
        receiving = asyncio.ensure_future(self._receive())
        sending = asyncio.ensure_future(self._send())
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            # The last answer may come before the end of writing has been confirmed.
            if not sending.done() and not self._all_sent:
                await receiving
                raise WrongAnswer("the server ended a stream before all was sent")
            # The receiver first: it knows why a stream ended, the sender only that it did.
            await asyncio.wait_for(receiving, _ANSWERS_TIMEOUT_S)
            await sending
        finally:
            sending.cancel()
            receiving.cancel()
        if self._unanswered:
            raise WrongAnswer(f"{len(self._unanswered)} batches were never answered")

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def _send(self) -> None:
        schedule, batches = self._schedule, 0
        while True:
            due_at = schedule.due_at(self._number, batches)
            if due_at is None:
                await self._room.acquire()
                due_at = time.perf_counter()
            else:
                await _until(due_at)
            batch = schedule.next(due_at, self._number)
            if batch is None:
                break
            self._unanswered.append((schedule.batch_id(), due_at))
            schedule.sent.lateness.add(time.perf_counter() - due_at)
            await self._call.write(batch)
            batches += 1
        self._all_sent = True
        await self._call.done_writing()

    async def _receive(self) -> None:
        while True:
            data = await self._call.read()
            if data is aio.EOF:
                # Raises if the stream ended with an error.
                status = await self._call.code()
                if status.value[0]:
                    raise WrongAnswer(f"a stream ended with {status}: {await self._call.details()}")
                return
            answer = StreamEventsResponse.FromString(data)
            batch_id, since = self._unanswered.popleft()
            if answer.batch_id != batch_id:
                raise WrongAnswer(f"an answer to {answer.batch_id} came in the place of {batch_id}")
            self._schedule.answered(answer, since)
            self._room.release()


async def _until(moment: float) -> None:
    # A timer may fire early by its resolution.
    while (left := moment - time.perf_counter()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(left)


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
