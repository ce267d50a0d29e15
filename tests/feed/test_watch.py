"""Watches: any start, any filter, any pace, and still every change once and in order.

Among them etcd's published list of what its watches once did wrong.
"""

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.feed.clocked import Clocked
from tests.feed.readers import BEGINNING, Reader, eventually, everything, running, scans
from trackd.domain.vocabulary import Flag
from trackd.feed import live as live_module
from trackd.feed.filters import ALL, Filter
from trackd.feed.partition_feed import PositionExpired
from trackd.feed.retention import KeptLog
from trackd.feed.watch import Place, Watch
from trackd.v1.feed_pb2 import Change, ChangeRun

FILTERS = (
    ALL,
    Filter.of(waybill_numbers=["sf0000000001", "SF0000000002"]),
    Filter.of(facility_codes=["A", "C"], milestones=[30]),
    Filter.of(milestones=[50]),
    Filter.of(flags=[Flag.DAMAGED, Flag.DELAYED]),
    Filter.of(flags=[Flag.DELAYED], facility_codes=["B"], waybill_numbers=["SF0000000003"]),
    Filter(news_only=True),
    Filter.of(waybill_numbers=["SF9999999999"]),
)


@pytest.mark.parametrize("seed", range(3))
async def test_every_pace_and_filter_is_told_all_of_it_once(
    clocked: Clocked, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watches that begin, fall behind and come back at any time, while scans come in."""
    monkeypatch.setattr("trackd.feed.watch.HELD_CHANGES_MAX", 4)
    monkeypatch.setattr("trackd.feed.live.run_bytes_max", lambda watches: 2_000)
    monkeypatch.setattr("trackd.feed.live._ENTRIES_AT_A_TIME", 17)
    chance = random.Random(seed)
    await scans(clocked, 100, chance)
    async with running(clocked.live()) as live:
        readers = [Reader(live, wanted) for wanted in FILTERS]
        for part in range(6):
            readers += [
                Reader(live, chance.choice(FILTERS), pause_s=chance.choice([0, 0.001, 0.02]))
                for _ in range(4)
            ]
            # One goes away and comes back where it was.
            back = readers[part]
            await back.ended()
            again = Reader(live, back.watch.filter, back.place)
            again.changes, readers[part] = back.changes, again
            await scans(clocked, 150, chance)
        newest = clocked.partition.feed.newest_position
        for reader in readers:
            wanted = everything(clocked, reader.watch.filter)
            async with asyncio.timeout(60):
                while reader.positions != wanted:
                    assert reader.positions == wanted[: len(reader.positions)]
                    await asyncio.sleep(0.005)
        assert newest == 1_000
        if seed == 0:
            assert live.figures.fell_behind > 0
        assert live.figures.changes_told >= len(everything(clocked)) * 2
        for reader in readers:
            await reader.ended()
        assert live.watches == set()
        assert live.at_end == 0


async def test_a_watch_from_now_hears_only_what_comes(clocked: Clocked) -> None:
    """It is told at once that it is caught up, and then everything after the call."""
    chance = random.Random(1)
    await scans(clocked, 50, chance)
    async with running(clocked.live()) as live:
        place = Place({0: clocked.partition.feed.newest_position})
        reader = Reader(live, place=place)
        await eventually(lambda: bool(reader.caught_up))
        assert reader.caught_up == [place]
        await scans(clocked, 50, chance)
        await reader.until(100)
        assert reader.positions == [each for each in everything(clocked) if each > 50]
        assert len(reader.caught_up) == 1
        await reader.ended()


async def test_the_past_is_told_whole_while_others_wait_for_its_end(clocked: Clocked) -> None:
    """What was durable when it began comes before the news that it is caught up."""
    chance = random.Random(7)
    await scans(clocked, 50, chance)
    live = clocked.live()
    other = Watch(live, ALL, Place({0: 50}))
    assert await other.next() is not None
    assert other.state == "live"
    told_to_all = everything(clocked)
    await scans(clocked, 50, chance)
    reader = Reader(live)
    # The teller rests: those at the end have not heard of the latest yet.
    await eventually(lambda: reader.positions == told_to_all)
    for _ in range(20):
        await asyncio.sleep(0)
    assert reader.caught_up == []
    async with running(live):
        await eventually(lambda: bool(reader.caught_up))
        assert reader.caught_up == [Place({0: 100})]
        assert reader.positions == everything(clocked)
        await reader.ended()
        other.close()


async def test_etcd_lost_on_starvation(clocked: Clocked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch whose reader starves while others are served loses nothing when it reads again."""
    monkeypatch.setattr(live_module, "HELD_S_MAX", 0.05)
    chance = random.Random(2)
    async with running(clocked.live(heartbeat_s=0.2)) as live:
        quick, starved = Reader(live), Watch(live, ALL, BEGINNING)
        assert (first := await starved.next()) is not None  # caught up, and then it sleeps
        assert first.run == b""
        for _ in range(10):
            await scans(clocked, 60, chance)
            await asyncio.sleep(0.02)
        await quick.until(600)
        assert quick.positions == everything(clocked)
        await eventually(lambda: starved.state == "behind")
        assert starved._heard == type(starved._heard)()
        found: list[int] = []
        while len(found) < len(quick.positions):
            told = await starved.next()
            assert told is not None
            run = ChangeRun.FromString(told.run)
            found += [int(each.position.rpartition(".")[2]) for each in run.changes]
        assert found == quick.positions
        starved.close()
        await quick.ended()


async def test_etcd_resume_at_the_compaction_point(clocked: Clocked) -> None:
    """The last place before what was let go still works; one before it is an error, never a gap."""
    await clocked.journeys(5)
    await clocked.trim(KeptLog(age_ms=10 * 86_400_000, bytes_max=1 << 50))
    feed = clocked.partition.feed
    assert feed.oldest_position == 12
    async with running(clocked.live()) as live:
        reader = await Reader(live, place=Place({0: 11})).until(20)
        assert reader.positions == list(range(12, 21))
        await reader.ended()
        watch = Watch(live, ALL, Place({0: 10}))
        with pytest.raises(PositionExpired):
            await watch.next()
        watch.close()


async def test_a_watch_that_the_floor_overtakes_is_told(clocked: Clocked) -> None:
    """It is behind, and the log is trimmed before it reads on: an error, not a gap."""
    await clocked.journeys(2)
    async with running(clocked.live()) as live:
        watch = Watch(live, Filter.of(waybill_numbers=["SF0000000000"]), BEGINNING)
        await watch.next()
        watch._positions = [2]
        await clocked.journeys(3)
        await clocked.trim(KeptLog(age_ms=10 * 86_400_000, bytes_max=1 << 50))
        watch.fall_behind()
        with pytest.raises(PositionExpired):
            await watch.next()
        watch.close()


async def test_etcd_future_position_returns_nothing_old(clocked: Clocked) -> None:
    """A watch that begins ahead of those at the end is told nothing that is before its place."""
    chance = random.Random(3)
    await scans(clocked, 30, chance)
    live = clocked.live()
    first = Watch(live, ALL, Place({0: 30}))
    assert (await first.next()) is not None
    assert first.state == "live"
    # The teller has not run yet: whoever is at the end is at 30, the log at 60.
    await scans(clocked, 30, chance)
    async with running(live):
        reader = await Reader(live, place=Place({0: 60})).until(60)
        await scans(clocked, 30, chance)
        await reader.until(90)
        assert reader.positions == [each for each in everything(clocked) if each > 60]
        await reader.ended()
        first.close()


async def test_etcd_progress_in_step(clocked: Clocked) -> None:
    """A heartbeat never names a place beyond a change that was not told before it."""
    chance = random.Random(4)
    wanted = Filter.of(waybill_numbers=["SF0000000001"])
    async with running(clocked.live(heartbeat_s=0.1)) as live:
        watch = Watch(live, wanted, BEGINNING)
        told_up_to, heartbeats = 0, 0
        for _ in range(12):
            scanning = asyncio.ensure_future(scans(clocked, 40, chance))
            async with asyncio.timeout(60):
                while heartbeats < 2 or not scanning.done():
                    told = await watch.next()
                    assert told is not None
                    place = told.place.positions[0]
                    assert place >= told_up_to
                    if told.run:
                        run = ChangeRun.FromString(told.run)
                        positions = [int(each.position.rpartition(".")[2]) for each in run.changes]
                        expected = everything(clocked, wanted)
                        due = [each for each in expected if told_up_to < each <= place]
                        assert positions == due
                    else:
                        heartbeats += 1
                        missed = [
                            each
                            for each in everything(clocked, wanted)
                            if told_up_to < each <= place
                        ]
                        assert missed == []
                    told_up_to = place
            await scanning
            heartbeats = 0
        assert told_up_to == clocked.partition.feed.newest_position
        watch.close()


@pytest.mark.parametrize("write_back_events", [4, 100_000])
@pytest.mark.parametrize("wanted", FILTERS)
async def test_a_snapshot_and_what_follows_are_the_whole(
    tmp_path: Path, wanted: Filter, write_back_events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statuses on disk or in memory, interrupted anywhere, while scans come in: nothing is missed.

    What is known of every waybill in the end is its latest status, as far as the filter tells it.
    """
    monkeypatch.setattr("trackd.feed.watch.RUN_BYTES_MIN", 700)
    monkeypatch.setattr("trackd.feed.live.run_bytes_max", lambda watches: 700)
    clocked = Clocked(tmp_path, write_back_events=write_back_events)
    chance = random.Random(5)
    await scans(clocked, 300, chance)
    before = everything(clocked, wanted)
    async with running(clocked.live()) as live:
        place = Place({0: 300}, (0, b""))
        known: dict[str, Change] = {}
        told_after = []
        watch = Watch(live, wanted, place)
        for step in range(1_000):
            told = await watch.next()
            assert told is not None
            place = told.place
            for change in ChangeRun.FromString(told.run).changes:
                known[change.waybill_number] = change
                told_after.append(int(change.position.rpartition(".")[2]))
            if place.snapshot and step % 3 == 2:
                watch.close()  # the reader is gone, and comes back with its token
                watch = Watch(live, wanted, place)
            if place.snapshot and step < 20:
                await scans(clocked, 10, chance)
            if not told.run:
                break
        newest = clocked.partition.feed.newest_position
        if place.positions[0] < newest:
            while place.positions[0] < newest and (told := await watch.next()) is not None:
                place = told.place
                for change in ChangeRun.FromString(told.run).changes:
                    known[change.waybill_number] = change
        watch.close()
    assert before or not wanted.waybill_numbers or not known
    feed = clocked.partition.feed
    for logged in feed.read(300, entries_max=newest).changes:
        if wanted.matches(logged):
            assert logged.position in told_after or logged.waybill_number in known
    if wanted == ALL:
        latest = {each.waybill_number: each for each in feed.read(0, entries_max=newest).changes}
        assert known.keys() == latest.keys()
        for number, last in latest.items():
            status = known[number].status
            assert int(status.milestone) == last.milestone
            assert sum(1 << flag for flag in status.flags) == last.flags
    await clocked.partition.close()


async def test_a_stuck_watch_holds_next_to_nothing(clocked: Clocked) -> None:
    """It is sent away after a moment; what it holds is its place."""
    chance = random.Random(6)
    live = clocked.live(heartbeat_s=0.2)
    async with running(live):
        watch = Watch(live, Filter.of(milestones=[30, 50]), BEGINNING)
        assert (await watch.next()) is not None
        await scans(clocked, 100, chance)
        await eventually(lambda: bool(watch._heard))
        await eventually(lambda: watch.state != "live")
        assert not watch._heard
        assert live.figures.fell_behind == 1
        watch.close()


async def test_who_hears_often_waits_for_the_wave(
    clocked: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A little waits, so that more comes together; what fills a message does not."""
    monkeypatch.setattr(live_module, "_WAVE_S_PER_WATCH", 3_600.0)
    monkeypatch.setattr(live_module, "WAVE_S_MAX", 3_600.0)
    monkeypatch.setattr(live_module, "_PAUSES_PER_WAVE", 1_000_000)
    monkeypatch.setattr(live_module, "HELD_S_MAX", 3_600.0)
    monkeypatch.setattr("trackd.feed.live.run_bytes_max", lambda watches: 20_000)
    chance = random.Random(9)
    async with running(clocked.live()) as live:
        reader = Reader(live)
        await eventually(lambda: bool(reader.caught_up))
        live._wave_at = time.monotonic()
        await scans(clocked, 20, chance)
        await eventually(lambda: reader.watch._held > 0)
        assert reader.positions == []
        await scans(clocked, 300, chance)
        await eventually(lambda: len(reader.positions) >= 60)
        await eventually(lambda: live.position(0) == 320)
        live._wave_now()
        await eventually(lambda: reader.positions == everything(clocked))
        await reader.ended()


async def test_nobody_at_the_end_costs_nothing(clocked: Clocked) -> None:
    """Without watches no block is taken apart."""
    async with running(clocked.live()):
        await scans(clocked, 50, random.Random(7))
        await asyncio.sleep(0.01)
        assert all(block.changes is None for block in clocked.partition.feed._tail)


async def test_a_stop_ends_every_watch(clocked: Clocked) -> None:
    """At the end, behind, or with nothing to tell: `next` says that it is over."""
    await scans(clocked, 20, random.Random(8))
    async with running(clocked.live()) as live:
        readers = [Reader(live), Reader(live, Filter.of(waybill_numbers=["SF9999999999"]))]
        await asyncio.gather(*(reader.until(20) for reader in readers))
        live.stop()
        async with asyncio.timeout(60):
            await asyncio.gather(*(reader.task for reader in readers))
        for reader in readers:
            reader.watch.close()
