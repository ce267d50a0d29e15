"""Bit rot in table files (row 10 of the promises): reads are right or DATA_LOSS, never short."""

import asyncio
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.harness.seeds import seeded
from tests.harness.server import ServerFailed, ServerProcess
from tests.wire.caller import NOON_MS, Caller, Refusal, outcome, scan_event
from trackd import exits
from trackd.domain.vocabulary import EventCode
from trackd.v1.event_pb2 import ShipmentStatus
from trackd.v1.tracking_pb2 import BatchGetStatusRequest, GetTimelineRequest, GetTimelineResponse

NUMBERS = [f"SF{n:06}" for n in range(400)]


@dataclass(frozen=True, slots=True)
class Healthy:
    """A closed data directory, and what was read from it before it was damaged."""

    data: Path
    statuses: dict[str, ShipmentStatus]
    timelines: dict[str, GetTimelineResponse]


async def timeline(caller: Caller, number: str) -> GetTimelineResponse | Refusal:
    """A waybill's whole history, or the refusal."""
    request = GetTimelineRequest(waybill_number=number, page_size=500)
    result = await outcome(caller.tracking.GetTimeline(request))
    assert isinstance(result, GetTimelineResponse | Refusal)
    return result


@pytest.fixture(scope="module")
async def healthy(tmp_path_factory: pytest.TempPathFactory) -> Healthy:
    """400 waybills of 8 events, all in table files."""
    directory = tmp_path_factory.mktemp("rot")
    server = ServerProcess(directory / "data", "--partitions", "2")
    await asyncio.to_thread(server.start)
    caller = Caller(server.grpc)
    for place in range(8):
        code = int(EventCode.HELD if place == 4 else EventCode.SORTED)
        events = [
            scan_event(
                f"e{place}",
                number,
                code=code,
                occurred_at_ms=NOON_MS + place,
                remark=random.Random(f"{number}{place}").randbytes(60).hex(),
            )
            for number in NUMBERS
        ]
        assert (await caller.append(*events)).accepted == len(NUMBERS)
    await caller.channel.close()
    await asyncio.to_thread(server.stop)
    # What the log held is moved to table files by the next start.
    await asyncio.to_thread(server.start)
    caller = Caller(server.grpc)
    request = BatchGetStatusRequest(waybill_numbers=NUMBERS)
    statuses = (await caller.tracking.BatchGetStatus(request)).statuses
    timelines = {}
    for number in NUMBERS:
        found = await timeline(caller, number)
        assert isinstance(found, GetTimelineResponse)
        assert len(found.events) == 8
        timelines[number] = found
    await caller.channel.close()
    assert await asyncio.to_thread(server.stop) == 0
    assert sum(1 for _ in server.data.glob("*/*.sst")) >= 8
    return Healthy(server.data, {status.waybill_number: status for status in statuses}, timelines)


def flip_bits(data: Path, rng: random.Random) -> None:
    """Flips one bit in each table file."""
    for file in sorted(data.glob("*/*.sst")):
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)


async def read_everything(caller: Caller, healthy: Healthy) -> int:
    """Reads every status and timeline; how many reads were refused. A wrong one fails the test."""
    refused = 0
    for start in range(0, len(NUMBERS), 20):
        some = NUMBERS[start : start + 20]
        request = BatchGetStatusRequest(waybill_numbers=some)
        result = await outcome(caller.tracking.BatchGetStatus(request))
        if isinstance(result, Refusal):
            assert (result.code, result.reason) == (grpc.StatusCode.DATA_LOSS, "DATA_DAMAGED")
            refused += 1
        else:
            assert list(result.statuses) == [healthy.statuses[number] for number in some]
    for number in NUMBERS:
        found = await timeline(caller, number)
        if isinstance(found, Refusal):
            assert (found.code, found.reason) == (grpc.StatusCode.DATA_LOSS, "DATA_DAMAGED")
            refused += 1
        else:
            assert found == healthy.timelines[number]
    return refused


async def rot(healthy: Healthy, directory: Path, rng: random.Random, rounds: int) -> None:
    """Damages a copy and reads everything, again and again."""
    refused = closed = 0
    for number in range(rounds):
        data = directory / f"{number}"
        await asyncio.to_thread(shutil.copytree, healthy.data, data)
        await asyncio.to_thread(flip_bits, data, rng)
        server = ServerProcess(data)
        try:
            await asyncio.to_thread(server.start)
        except ServerFailed:
            assert server.exit_code == exits.DATA_BEHIND, server.log
            closed += 1
            continue
        caller = Caller(server.grpc)
        try:
            refused += await read_everything(caller, healthy)
        finally:
            await caller.channel.close()
            server.kill()
        await asyncio.to_thread(shutil.rmtree, data)
    assert refused + closed, "nothing that was damaged was read"


async def test_a_server_on_rotten_files_never_answers_wrong(
    healthy: Healthy, tmp_path: Path
) -> None:
    """One bit of each table file flipped: right, DATA_LOSS, or not started with 78."""
    await rot(healthy, tmp_path, seeded("bit rot"), rounds=2)


@pytest.mark.torture
async def test_a_server_on_many_rotten_files_never_answers_wrong(
    healthy: Healthy, tmp_path: Path
) -> None:
    """The same, long."""
    await rot(healthy, tmp_path, seeded("bit rot"), rounds=150)
