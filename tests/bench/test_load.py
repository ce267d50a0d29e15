"""The bench against a real server: it counts what it sent, and notices what is missing or wrong."""

import os
import signal
import subprocess
import sys
import time
from itertools import repeat
from pathlib import Path

import orjson
import pytest

from bench.batches import BatchMaker, Mix, waybill_number
from bench.known import Questions, make_known, verify_counts
from bench.load import Load, Sent, WrongAnswer, send
from bench.lookups import closed_loop, connected, open_loop
from bench.server import ServerFailed, trackd_server
from tests.conftest import Serve
from trackd.v1.tracking_pb2 import GetStatusResponse

SMALL = Mix(events_per_batch=50, waybills=1_000)


async def test_every_event_sent_is_answered_and_stored(serve: Serve) -> None:
    """Two seconds of new events: all are accepted, and the statuses count just as many."""
    server, maker = serve(), BatchMaker(SMALL)
    sent = await send(server.grpc, maker, Load(seconds=2, connections=3))
    sent.check(repeated=0)
    assert sent.sent == maker.made == sent.accepted > 0
    assert len(sent.latencies) == maker.batches
    async with connected(server.grpc) as channels:
        await verify_counts(channels, waybills=SMALL.waybills, events=sent.accepted)
        with pytest.raises(WrongAnswer, match="acknowledged"):
            await verify_counts(channels, waybills=SMALL.waybills, events=sent.accepted + 1)


async def test_repeats_come_back_as_duplicates(serve: Serve) -> None:
    """At a given rate, with repeats: each repeat is counted as a duplicate, and stored once."""
    server = serve()
    maker = BatchMaker(Mix(events_per_batch=50, waybills=1_000, repeats=0.1))
    load = Load(seconds=1, connections=2, rate=5_000)
    sent = await send(server.grpc, maker, load)
    sent.check(repeated=maker.repeated)
    assert sent.sent == 5_000
    assert sent.duplicates == maker.repeated > 0
    async with connected(server.grpc) as channels:
        await verify_counts(channels, waybills=1_000, events=sent.accepted)


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (Sent(sent=100, accepted=99), "99 answered"),
        (Sent(sent=100, accepted=99, rejected=1), "rejected"),
        (Sent(sent=100, accepted=99, duplicates=1), "counted as such"),
    ],
)
def test_counts_that_do_not_add_up_are_wrong(sent: Sent, fault: str) -> None:
    """A lost ack, a rejected good event and a duplicate that was none are each noticed."""
    with pytest.raises(WrongAnswer, match=fault):
        sent.check(repeated=0)


async def test_reads_of_known_waybills_are_checked(serve: Serve) -> None:
    """All three kinds of read pass their checks, and an answer about another waybill does not."""
    server = serve()
    await make_known(server.grpc, Mix(), waybills=2_400, now_ms=time.time_ns() // 1_000_000)
    questions = Questions(waybills=2_400, seed=1)
    async with connected(server.grpc) as channels:
        for ask in (questions.get_status, questions.get_timeline, questions.batch_get_status):
            answers, _ = await closed_loop(channels, ask, concurrency=4, seconds=0.3)
            assert answers > 0
        reads = await open_loop(channels, questions.get_status, rate=100, seconds=0.5)
        assert len(reads.latencies) == 50
        assert reads.refused == 0
    other = GetStatusResponse()
    other.status.waybill_number = waybill_number(2)
    request = b"\x0a\x0d" + waybill_number(1).encode()
    with pytest.raises(WrongAnswer):
        questions.get_status.check(request, other.SerializeToString())


async def test_a_server_that_dies_is_told_with_its_log(tmp_path: Path) -> None:
    """Killed under load: the load fails, and the failure says that the server ended."""

    async def killed_under_load() -> None:
        with trackd_server(tmp_path / "data") as server:
            maker = BatchMaker(SMALL)

            def make(now_ms: int) -> bytes:
                if maker.batches == 10:
                    os.kill(server.pid, signal.SIGKILL)
                return maker.make(now_ms)

            await send(server.address, maker, Load(seconds=30), batches=repeat(make))

    with pytest.raises(ServerFailed, match="ended with -9"):
        await killed_under_load()


def test_the_command_reports_figures_and_floors(tmp_path: Path) -> None:
    """`python -m bench` on one scenario: exit 0, its figures in the table and in the JSON."""
    command = [sys.executable, "-m", "bench", "--short", "--only", "batch_reads"]
    command += ["--results", str(tmp_path / "results"), "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BatchGetStatus of 100" in done.stdout
    (file,) = (tmp_path / "results").iterdir()
    figure = orjson.loads(file.read_bytes())["scenarios"]["batch_reads"]["figures"][0]
    assert figure["least"] == 250_000
    assert figure["met"] == (figure["value"] >= 250_000)
    assert list(tmp_path.iterdir()) == [tmp_path / "results"]
