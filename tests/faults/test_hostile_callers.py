"""Rows 20, 21 and 26: callers that are broken, hostile, very many, or gone in the middle of a call.

What they send is answered with an error, the process lives, its memory stays where it was, and
everybody else is served.
"""

import asyncio
import collections
import random
import resource
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.conftest import Serve
from tests.harness.fleet import Fleet, FleetOptions
from tests.harness.frames import INGEST, STREAM, TRACKING, mutated, nested, valid_requests
from tests.harness.ledger import Ledger
from tests.harness.oracle import expect_sound, read_back
from tests.harness.scans import ScanSource, waybills_of
from tests.harness.seeds import seeded
from tests.harness.server import ServerProcess
from trackd.v1.ingest_pb2 import AppendEventsRequest, StreamEventsRequest
from trackd.v1.tracking_pb2 import GetTimelineRequest

_APPEND = f"{INGEST}/AppendEvents"
_AT_ONCE = 64
_MIB = 1 << 20
Code = grpc.StatusCode

# Row 20.

# A mutation may leave a request valid, or ask for what is not there; it is not the server's fault.
_FAIR = {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION}
_MUTATIONS = 10_000
_MUTATION_GROWTH_BYTES = 32 * _MIB
_BOMB_BYTES = 256 * _MIB
_BOMB_GROWTH_BYTES = 64 * _MIB


def _unary(channel: grpc.aio.Channel, method: str) -> Any:
    """A method that takes and gives raw bytes, for which gRPC has no types."""
    return channel.unary_unary(method)


def _stream(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(STREAM)


async def _told(call: Awaitable[object]) -> Code:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return Code.OK


async def _send(channel: grpc.aio.Channel, method: str, frame: bytes) -> Code:
    """Sends raw bytes; how the call ended."""
    if method != STREAM:
        return await _told(_unary(channel, method)(frame))
    call = _stream(channel)(iter([frame]))
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return Code.OK


async def _many(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """Has so many done, some at once."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))


async def _mutate(server: ServerProcess, rng: random.Random, count: int) -> None:
    requests = valid_requests(rng, "MUTANT")
    codes: collections.Counter[Code] = collections.Counter()
    async with grpc.aio.insecure_channel(server.grpc) as channel:

        async def one(_: int) -> None:
            method, frame = rng.choice(requests)
            codes[await _send(channel, method, mutated(frame, rng))] += 1

        await _many(count, one)
    print(dict(codes))
    assert set(codes) <= _FAIR
    assert codes[Code.INVALID_ARGUMENT], "void: nothing was malformed"


async def test_malformed_requests_are_answered_with_an_error(serve: Serve) -> None:
    """Row 20: ten thousand mutated requests: no INTERNAL, memory flat, what was stored is sound."""
    rng = seeded("mutations")
    server = serve("--partitions", "2")
    await _mutate(server, rng, _MUTATIONS // 5)
    before = server.resident_bytes
    await _mutate(server, rng, _MUTATIONS)
    assert server.resident_bytes - before < _MUTATION_GROWTH_BYTES
    assert "call failed" not in server.log
    assert server.stop() == 0
    expect_sound(server.data)


async def test_what_is_too_large_is_refused_before_it_is_unpacked(serve: Serve) -> None:
    """Row 20: a message over the limit, a bomb of 256 MiB in 256 KiB, and groups nested deep."""
    server = serve()
    scan = ScanSource("BIG", waybills_of("BIG", 1), seeded("big"), late_share=0).batch(1)[0]
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        append = _unary(channel, _APPEND)
        assert await _told(append(bytes(2 * _MIB))) == Code.RESOURCE_EXHAUSTED
        before = server.resident_bytes
        for _ in range(3):
            bomb = append(bytes(_BOMB_BYTES), compression=grpc.Compression.Gzip)
            assert await _told(bomb) == Code.RESOURCE_EXHAUSTED
            assert "ecompressed" in await bomb.details(), "void: it did not come compressed"
        assert server.peak_resident_bytes - before < _BOMB_GROWTH_BYTES
        for depth in (99, 100, 101, 10_000):
            assert await _told(append(nested(depth))) in {Code.OK, Code.INVALID_ARGUMENT}
        most = AppendEventsRequest(events=[scan] * 1_001)
        assert await _told(append(most.SerializeToString())) == Code.INVALID_ARGUMENT
        # And everybody else is served as ever.
        one = AppendEventsRequest(events=[scan])
        assert await _told(append(one.SerializeToString())) == Code.OK
    assert server.stop() == 0


async def test_what_is_not_grpc_is_hung_up_on(serve: Serve) -> None:
    """Row 20: noise, another protocol, or silence on the port harms nobody."""
    rng = seeded("noise")
    server = serve()
    host, port = server.grpc.rsplit(":", 1)
    openings = [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    writers = []
    for number in range(300):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(openings[number % len(openings)] + rng.randbytes(rng.randrange(1, 2_000)))
        writers.append(writer)
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        request = GetTimelineRequest(waybill_number="NOBODY-1").SerializeToString()
        for _ in range(20):
            timeline = _unary(channel, f"{TRACKING}/GetTimeline")(request, timeout=60)
            assert await _told(timeline) == Code.NOT_FOUND
    for writer in writers:
        writer.close()
    assert server.stop() == 0


# Row 21.

_IDLE = 2_000
_ACTIVE = 200
_IDLE_BYTES_EACH_MAX = 64 << 10
_FILES = 3 * (_IDLE + _ACTIVE)
# What an HTTP/2 client says first: the preface, and SETTINGS with nothing in it.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS_ACK = bytes((0, 0, 0, 4, 1, 0, 0, 0, 0))


@pytest.fixture
def many_files() -> None:
    """As many open files as the connections need, for this process and those it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        assert hard >= _FILES or hard == resource.RLIM_INFINITY, f"ulimit -n is {hard}"
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, hard))


def _idle_connections(address: str, count: int) -> list[socket.socket]:
    """Connections that said hello, as a client does, and nothing since."""
    host, port = address.rsplit(":", 1)
    connections = []
    for _ in range(count):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(_HELLO)
        assert connection.recv(9)[3] == 4, "the server says SETTINGS"  # the type of the frame
        connection.sendall(_SETTINGS_ACK)
        connections.append(connection)
    return connections


async def test_thousands_of_connections_disturb_nobody(serve: Serve, many_files: None) -> None:
    """Row 21: with 2,000 idle connections, 200 more scan and read; memory is bounded per caller."""
    server = serve("--partitions", "2")
    ledger = Ledger()
    options = FleetOptions(
        scanners=_ACTIVE,
        readers=20,
        waybills_each=2,
        batch_events_max=10,
        batches_in_flight=2,
        pause_s_max=0.5,
    )
    fleet = Fleet("MANY", ledger, seeded("connections"), options)
    before = server.resident_bytes
    idle = await asyncio.to_thread(_idle_connections, server.grpc, _IDLE)
    assert server.resident_bytes - before < _IDLE * _IDLE_BYTES_EACH_MAX
    async with fleet.at_work(server.grpc):
        await asyncio.sleep(2)
    assert fleet.ends == [None] * _ACTIVE
    assert not ledger.unacknowledged()
    assert await read_back(ledger, server.grpc)
    for connection in idle:
        connection.close()
    assert server.stop() == 0
    expect_sound(server.data)


_FEW_FILES = 256


def _said_hello(address: str, count: int) -> list[socket.socket]:
    """Connections on which the server answered, of so many that were tried."""
    host, port = address.rsplit(":", 1)
    answered = []
    for _ in range(count):
        connection = socket.create_connection((host, int(port)))
        try:
            connection.sendall(_HELLO)
            greeted = bool(connection.recv(9))
        except ConnectionError:
            greeted = False
        if greeted:
            answered.append(connection)
        else:
            connection.close()
    return answered


async def test_connections_leave_the_store_its_files(tmp_path: Path) -> None:
    """More of them than there are files: some are closed, and the store goes on making tables."""
    few = ("sh", "-c", f'ulimit -n {_FEW_FILES} && exec "$@"', "sh")
    server = ServerProcess(
        tmp_path / "data", "--partitions", "1", "--write-buffer-bytes", "1MiB", through=few
    ).start()
    try:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            append = _unary(channel, _APPEND)
            scans = ScanSource("FILES", waybills_of("FILES", 500), seeded("files"), late_share=0)
            await append(AppendEventsRequest(events=scans.batch(1)).SerializeToString())
            idle = await asyncio.to_thread(_said_hello, server.grpc, 2 * _FEW_FILES)
            assert len(idle) < _FEW_FILES // 2
            for _ in range(40):
                await append(AppendEventsRequest(events=scans.batch(1_000)).SerializeToString())
            for connection in idle:
                connection.close()
        assert server.stop() == 0
    finally:
        server.kill()
    expect_sound(server.data)


def test_a_server_takes_as_many_files_as_it_may(serve: Serve) -> None:
    """What a shell allows by default is not enough for thousands of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, _FEW_FILES), hard))
    try:
        server = serve()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    taken, _ = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    assert taken == (1 << 20 if hard == resource.RLIM_INFINITY else min(hard, 1 << 20))


def test_a_server_that_may_open_too_few_files_says_so(tmp_path: Path) -> None:
    """One line that names the limit, before it touches the data directory."""
    trackd = Path(sys.executable).with_name("trackd")
    ended = subprocess.run(
        ["sh", "-c", f'ulimit -n 64 && exec {trackd} serve --data "$1"', "sh", tmp_path / "data"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    told = "trackd: this process may have 64 files open, and a server needs 128 at least; "
    assert ended.stderr == told + "raise the limit (ulimit -Hn, LimitNOFILE)\n"
    assert not (tmp_path / "data").exists()


# Row 26.

_CANCELS = 10_000
_CANCEL_GROWTH_BYTES = 16 * _MIB
_STREAMS_MAX = 40
_READS_MAX = 100


async def _cancel(server: ServerProcess, rng: random.Random, count: int) -> None:
    """Begins calls and leaves them: at once, or when the server is at work on them."""
    scans = ScanSource("GONE", waybills_of("GONE", 50), rng, late_share=0)
    append = AppendEventsRequest(events=scans.batch(20)).SerializeToString()
    stream = StreamEventsRequest(batch_id="x", events=scans.batch(20)).SerializeToString()
    timeline = GetTimelineRequest(waybill_number="GONE-00001").SerializeToString()
    async with grpc.aio.insecure_channel(server.grpc) as channel:

        async def one(number: int) -> None:
            if number % 3 == 0:
                call = _unary(channel, _APPEND)(append)
            elif number % 3 == 1:
                call = _unary(channel, f"{TRACKING}/GetTimeline")(timeline)
            else:
                call = _stream(channel)(iter([stream] * 3))
            await asyncio.sleep(rng.choice((0, 0, 0.001, 0.01)))
            call.cancel()
            await asyncio.wait([asyncio.ensure_future(call.code())])

        await _many(count, one)


async def test_calls_that_are_cancelled_leave_nothing_behind(serve: Serve) -> None:
    """Row 26: ten thousand calls left in the middle: memory flat, every place at the table free."""
    rng = seeded("cancels")
    limits = ("--streams-max", str(_STREAMS_MAX), "--reads-in-flight-max", str(_READS_MAX))
    server = serve("--partitions", "2", *limits)
    await _cancel(server, rng, _CANCELS // 5)
    before = server.resident_bytes
    await _cancel(server, rng, _CANCELS)
    assert server.resident_bytes - before < _CANCEL_GROWTH_BYTES
    # A place that a cancelled call had kept would be missing now.
    ledger = Ledger()
    options = FleetOptions(scanners=_STREAMS_MAX, readers=0, batch_events_max=5)
    fleet = Fleet("AFTER", ledger, rng, options)
    async with fleet.at_work(server.grpc):
        await asyncio.sleep(0.5)
    assert fleet.ends == [None] * _STREAMS_MAX
    assert await read_back(ledger, server.grpc)
    assert "call failed" not in server.log
    assert server.stop() == 0
    expect_sound(server.data)
