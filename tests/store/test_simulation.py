"""A partition through crashes, power cuts, stalls and failures, in a world made of a seed.

Couriers send batches, again and again until they are acknowledged; readers look. After each crash
the store is opened again and held against what was sent, acknowledged and seen: nothing
acknowledged is lost (I1), nothing is there twice (I2), positions have no gaps (I3), every status
and entry is as folded (I4, I5), a batch is there wholly or not at all (I7), and what anybody saw is
still there.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.harness.seeds import seeded
from tests.store.desk import NOON_MS, Desk, scan, scan_event
from tests.store.simulated import Faults, SimulatedEngine, SimulatedLoop, SimulatedMark
from trackd import partition as partition_module
from trackd.domain.vocabulary import EventCode, Rejection
from trackd.partition import Partition, PartitionOptions
from trackd.store.errors import StorageFailed
from trackd.store.events import parse_event
from trackd.store.keys import Table, status_key
from trackd.store.planner import Verdict
from trackd.store.records import decode_status
from trackd.store.replay import event_row
from trackd.v1.event_pb2 import ScanEvent

HOUR_MS = 3_600_000
WAYBILLS = [f"SF{n:04}" for n in range(5)]
COMMON = [EventCode.SORTED, EventCode.DEPARTED_FACILITY, EventCode.OUT_FOR_DELIVERY]
Identity = tuple[str, str]
# What the worlds must go through to prove anything.
HAPPENS = [
    *("stopped", "failed", "crashed"),
    *("stalled unlogged", "failed unlogged", "failed keep"),
    *("events without statuses", "statuses without events"),
]


class Courier:
    """Sends its batches in order, some at a time, until each is acknowledged."""

    def __init__(self, name: str, rng: Random) -> None:
        self.rng = rng
        self.batches = [
            [self._event(f"{name}:{n}.{place}") for place in range(rng.randint(1, 5))]
            for n in range(rng.randint(3, 8))
        ]
        self.acknowledged: set[int] = set()

    def _event(self, event_id: str) -> ScanEvent:
        rng = self.rng
        code = rng.choice(COMMON if rng.random() < 0.6 else list(EventCode))
        attributes = {}
        if code == EventCode.EVENT_VOIDED:
            attributes["voids"] = f"c{rng.randrange(3)}:{rng.randrange(8)}.{rng.randrange(3)}"
        return scan_event(
            code,
            event_id,
            NOON_MS + rng.randrange(30),
            rng.choice(WAYBILLS),
            facility_code=rng.choice(["", "HUB1", "HUB2"]),
            attributes=attributes,
        )


class World:
    """One seed: a disk, couriers, readers, and one life of the partition after the other."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.faults = Faults()
        self.engine = SimulatedEngine(self.rng, self.faults)
        self.mark = SimulatedMark(self.rng)
        self.clock_ms = NOON_MS
        self.couriers = [Courier(f"c{n}", self.rng) for n in range(3)]
        self.seen: defaultdict[str, set[str]] = defaultdict(set)
        self.stored: set[Identity] = set()  # acknowledged
        # The last note that a clerk wrote, and the last that it was told is durable.
        self.noted = self.note_told = 0
        self.options = PartitionOptions(
            commit_events_max=self.rng.choice([1, 4, 1_000]),
            waybill_events_max=10_000,
            status_cache_bytes=self.rng.choice([0, 2_000, 1 << 20]),
            write_back_events=self.rng.choice([1, 5, 20, 1_000]),
        )
        # Of the life that is.
        self.failed = False
        self.submitted = 0
        self.answered = 0
        # What the engine did in the one before.
        self.happened: Counter[str] = Counter()

    def now_ms(self) -> int:
        """A clock that jumps: an hour or a day, to and fro."""
        if self.rng.random() < 0.1:
            self.clock_ms += self.rng.choice([-24, -1, 1, 24]) * HOUR_MS
        self.clock_ms += 1
        return self.clock_ms

    def on_failure(self, _: StorageFailed) -> None:
        """Once at most in a life; the process would end itself now."""
        assert not self.failed
        self.failed = True

    def open(self) -> Partition:
        """Opens the partition on what the disk holds."""
        return Partition.open(
            0,
            self.engine,
            self.options,
            path=Path(),
            mark_path=Path(),
            data_set_id="set",
            now_ms=self.now_ms,
            on_failure=self.on_failure,
        )

    async def live(self) -> bool:
        """Runs until everything is acknowledged, or something happens; whether it ended well."""
        self.failed, self.submitted, self.answered = False, 0, 0
        rng, faults = self.rng, self.faults
        faults.stall = faults.write = faults.flush = faults.keep = 0
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        loop.engine = self.engine
        partition = self.open()
        faults.stall = rng.choice([0, 0.05, 0.3])
        faults.write, faults.flush, faults.keep = rng.choice(
            [(0, 0, 0), (0, 0, 0), (0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.5)]
        )
        work = [asyncio.ensure_future(self.send(partition, courier)) for courier in self.couriers]
        readers = [asyncio.ensure_future(self.look(partition)) for _ in range(2)]
        readers.append(asyncio.ensure_future(self.note(partition)))
        readers.append(asyncio.ensure_future(self.tidy(partition)))
        patience_s = rng.choice([0.02, 0.1, 1_000, 1_000])
        done, _ = await asyncio.wait(work, timeout=rng.uniform(0, patience_s))
        if self.failed:
            _, waiting = await asyncio.wait(work, timeout=1)
            assert not waiting, "nobody was told of the failure"
        orderly = len(done) == len(work) and not self.failed
        if orderly:
            faults.write = faults.flush = faults.keep = 0
            await partition.close()
        survivor, mark = self.after(power_cut=rng.random() < 0.5 and not orderly)
        for task in (*work, *readers):
            task.cancel()
        for result in await asyncio.gather(*work, *readers, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError | StorageFailed | None):
                raise result
        self.happened = self.engine.happened
        self.engine, self.mark = survivor, mark
        return orderly

    def after(self, *, power_cut: bool) -> tuple[SimulatedEngine, SimulatedMark]:
        """What the next life finds."""
        engine = self.engine.after_crash(power_cut=power_cut)
        return engine, self.mark.after_crash(power_cut=power_cut)

    # What couriers do.

    async def send(self, partition: Partition, courier: Courier) -> None:
        """Sends what is not acknowledged; now and then what is, or what contradicts it."""
        waiting = [n for n in range(len(courier.batches)) if n not in courier.acknowledged]
        while waiting:
            window = waiting[: self.rng.randint(1, 4)]
            verdicts = await asyncio.gather(
                *(self.submit(partition, courier.batches[n]) for n in window),
                return_exceptions=True,
            )
            for n, verdict in zip(window, verdicts, strict=True):
                if isinstance(verdict, BaseException):
                    raise verdict
                assert not verdict.rejections
                assert verdict.accepted + verdict.duplicates == len(courier.batches[n])
                courier.acknowledged.add(n)
                self.stored |= {(e.waybill_number, e.event_id) for e in courier.batches[n]}
            waiting = waiting[len(window) :]
            await asyncio.sleep(self.rng.uniform(0, 0.01))
            if self.rng.random() < 0.3:
                await self.send_again(partition, courier)

    async def send_again(self, partition: Partition, courier: Courier) -> None:
        """A repeat counts as nothing but duplicates, a contradiction as nothing but conflicts."""
        batch = courier.batches[self.rng.choice(sorted(courier.acknowledged))]
        verdict = await self.submit(partition, batch)
        assert (verdict.accepted, verdict.duplicates) == (0, len(batch))
        other = []
        for event in batch:
            changed = ScanEvent()
            changed.CopyFrom(event)
            changed.remark = "not what it was"
            other.append(changed)
        verdict = await self.submit(partition, other)
        assert [fault.reason for _, fault in verdict.rejections] == [Rejection.CONFLICT] * len(
            other
        )

    async def submit(self, partition: Partition, events: list[ScanEvent]) -> Verdict:
        """Submits a batch; answers come durable, in the order of submission, before a failure."""
        number, self.submitted = self.submitted, self.submitted + 1
        try:
            verdict = await partition.submit([scan(event, n) for n, event in enumerate(events)])
        except StorageFailed:
            assert self.failed
            raise
        assert not self.failed, "acknowledged after a failure"
        assert number == self.answered, "answers are not in the order of submission"
        self.answered += 1
        assert verdict.position <= partition.committer.durable_position
        return verdict

    async def note(self, partition: Partition) -> None:
        """Puts aside rows that are not events, sometimes waiting until they are durable."""
        while True:
            self.noted = value = self.noted + 1
            row = (b"note", b"%d" % value)
            told = partition.committer.put_aside([(Table.SUBSCRIPTIONS, [row])])
            if self.rng.random() < 0.5:
                await told
                assert not self.failed, "told after a failure"
                self.note_told = value
            await asyncio.sleep(self.rng.uniform(0, 0.01))

    async def tidy(self, partition: Partition) -> None:
        """Now and then writes back before it is due, and has the checkpoint move up to it."""
        while True:
            await asyncio.sleep(self.rng.uniform(0, 0.1))
            for _ in range(self.rng.randrange(3)):
                partition.committer.write_back()
            await partition.committer.keep()
            assert not self.failed, "kept after a failure"

    # What readers do.

    async def look(self, partition: Partition) -> None:
        """Reads statuses and timelines; each is durable, complete, and no older than the last."""
        freshest: Counter[str] = Counter()
        while True:
            number = self.rng.choice(WAYBILLS)
            key = status_key(number)
            acknowledged = {event_id for waybill, event_id in self.stored if waybill == number}
            if self.rng.random() < 0.5:
                rows = await partition.read_statuses([status_key("SF9999"), key])
                assert rows.keys() <= {key}
                row = rows.get(key)
            else:
                newest_first = self.rng.random() < 0.5
                page = await partition.read_timeline(
                    key, after=None, newest_first=newest_first, limit=1_000, bytes_max=1 << 30
                )
                row = page.status if page else None
                if page:
                    ids = [parse_event(stored).event_id for stored in page.events]
                    assert len(set(ids)) == len(ids) == decode_status(page.status).event_count
                    assert acknowledged <= set(ids), "an acknowledged scan is not read"
                    self.seen[number] |= set(ids)
            if row is None:
                assert not acknowledged
                assert not freshest[number]
            else:
                status = decode_status(row)
                assert status.position <= partition.committer.durable_position
                assert status.position >= freshest[number], "a read went back in time"
                assert status.event_count >= len(acknowledged)
                freshest[number] = status.position
            await asyncio.sleep(self.rng.uniform(0, 0.01))

    # What must hold.

    def check(self, *, entries: bool) -> Counter[str]:
        """The oracle, on what the next life would find; entries never change, so once is enough.

        What the tables have of that which is not kept for good, counted.
        """
        engine, _ = self.after(power_cut=False)
        engine.faults = Faults()
        desk = Desk(engine)
        if entries:
            desk.check()
        else:
            desk.check_statuses()
        desk.check_checkpoint()
        note = int(engine.get(Table.SUBSCRIPTIONS, b"note") or 0)
        assert self.note_told <= note <= self.noted, "a note is lost"
        there: dict[Identity, ScanEvent] = {}
        for _, stored in desk.events():
            event = parse_event(stored)
            event.ClearField("recorded_at_ms")
            assert (event.waybill_number, event.event_id) not in there, "I2"
            there[event.waybill_number, event.event_id] = event
        assert self.stored <= there.keys(), "I1"
        for courier in self.couriers:
            for batch in courier.batches:
                found = [there.get((event.waybill_number, event.event_id)) for event in batch]
                assert found in ([None] * len(batch), batch), "I7"
        for number, ids in self.seen.items():
            assert {(number, event_id) for event_id in ids} <= there.keys(), "seen, and gone"
        return Counter(half_kept(desk)) + self.happened


def half_kept(desk: Desk) -> Iterator[str]:
    """For each entry that its table and the statuses' do not agree on, which of them has it."""
    events = {key for key, _ in desk.engine.scan_all(Table.EVENTS)}
    statuses = dict(desk.engine.scan_all(Table.STATUS))
    for entry in desk.log():
        event = parse_event(entry.event)
        key = status_key(event.waybill_number)
        row = statuses.get(key)
        in_status = row is not None and decode_status(row).position >= entry.position
        if event_row(key, entry, event)[0] in events:
            if not in_status:
                yield "events without statuses"
        elif in_status:
            yield "statuses without events"


def live_through(seed: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """All lives of one seed; what happened in them."""
    world = World(seed)
    happened: Counter[str] = Counter()
    for before in range(60):
        monkeypatch.setattr(partition_module, "DurableMark", lambda _: world.mark)
        loop = SimulatedLoop(world.rng)
        try:
            orderly = loop.run_until_complete(world.live())
        finally:
            loop.close()
        happened["stopped" if orderly else "failed" if world.failed else "crashed"] += 1
        finished = orderly and before > 0
        happened += world.check(entries=finished)
        if finished:
            return happened
    raise AssertionError("never came to an end")


def live_through_all(seeds: range, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """All lives of many seeds; a failure names its seed."""
    happened: Counter[str] = Counter()
    for seed in seeds:
        try:
            happened += live_through(seed, monkeypatch)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    return happened


def test_five_hundred_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its crashes, failures and orderly ends; none of the promises is ever broken."""
    happened = live_through_all(range(500), monkeypatch)
    assert min(happened[what] for what in HAPPENS) > 20, happened


@pytest.mark.torture
def test_many_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, long, from a seed of its own."""
    start = seeded("worlds").randrange(1 << 60)
    happened = live_through_all(range(start, start + 50_000), monkeypatch)
    assert min(happened[what] for what in HAPPENS) > 1_000, happened


def test_an_engine_that_forgets_to_flush_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with a flush that does nothing acknowledged scans are lost, and noticed."""
    monkeypatch.setattr(SimulatedEngine, "flush", lambda self, reached: None)
    with pytest.raises(Exception, match=r"I1|seen, and gone|was acknowledged|is lost"):
        live_through_all(range(50), monkeypatch)


def test_an_engine_that_counts_what_it_may_lose_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: with a checkpoint that runs ahead of the disk rows are missing, and noticed."""
    monkeypatch.setattr(SimulatedEngine, "kept_unlogged", lambda self: self.written.unlogged)
    with pytest.raises(AssertionError):
        live_through_all(range(50), monkeypatch)
