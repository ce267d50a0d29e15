"""What a start makes of what is there: after a crash, of damaged records, and after a loss."""

from collections.abc import Iterable, Sequence
from random import Random

import pytest

from tests.store.desk import NOON_MS, Desk, scan_event
from tests.store.test_planner import twins
from trackd.domain.vocabulary import EventCode
from trackd.store import rebuild as rebuild_module
from trackd.store import records, replay
from trackd.store.engine_contract import Rows
from trackd.store.errors import DataDamaged
from trackd.store.events import parse_event
from trackd.store.keys import META_STATUS_CHECKPOINT, Table, position_key, position_of, status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.store.rebuild import rebuild
from trackd.v1.event_pb2 import ScanEvent

pytestmark = pytest.mark.usefixtures("loops")

SORTED, OUT, DELIVERED = EventCode.SORTED, EventCode.OUT_FOR_DELIVERY, EventCode.DELIVERED
VOIDED = EventCode.EVENT_VOIDED


def busy_desk(seed: int, *, write_back_events: int = 40) -> tuple[Desk, MemoryEngine]:
    """A desk after 60 commits over a few waybills, with corrections and late events."""
    rng = Random(seed)
    engine = MemoryEngine()
    desk = Desk(engine, write_back_events=write_back_events, write_back_rows_max=7)
    for n in range(60):
        events = []
        for place in range(rng.randint(1, 6)):
            code = rng.choice([SORTED, SORTED, OUT, DELIVERED, EventCode.LOST, VOIDED])
            attributes = {"voids": f"{rng.randrange(60)}-0"} if code == VOIDED else {}
            waybill = f"SF{rng.randrange(12):04}"
            at = NOON_MS + rng.randrange(100)
            events.append(scan_event(code, f"{n}-{place}", at, waybill, attributes=attributes))
        desk.commit(events, now_ms=NOON_MS + n)
    return desk, engine


@pytest.mark.parametrize("seed", range(10))
def test_what_was_not_written_back_is_made_again_to_the_byte(seed: int) -> None:
    """From the log after the checkpoint only, however often the start is interrupted."""
    desk, engine = busy_desk(seed)
    checkpoint = replay.checkpoint_of(engine)
    assert 0 < checkpoint < desk.planner.position
    again = Desk(engine.crash())
    assert again.rows() == desk.rows()
    assert again.replayed == sum(1 for entry in desk.log() if entry.position > checkpoint)
    once_more = Desk(engine.crash())
    once_more.checkpoint()
    assert Desk(once_more.engine).rows() == desk.rows()
    once_more.check()


def test_nothing_is_laid_over_a_row_that_is_ahead() -> None:
    """A row written back after the checkpoint has seen entries that the replay meets again."""
    desk, engine = busy_desk(1)
    expected = desk.rows()
    desk.checkpoint()
    for position in (0, 1, 30, desk.planner.position - 1):
        survivor = engine.crash()
        survivor.write([(Table.META, [(META_STATUS_CHECKPOINT, position_key(position))])])
        assert Desk(survivor).rows() == expected


def test_a_log_that_refers_to_a_missing_event_is_damaged() -> None:
    """Said, not guessed around."""
    desk = Desk()
    desk.commit([scan_event(OUT, "a"), scan_event(DELIVERED, "b", NOON_MS + 1)])
    desk.checkpoint()
    desk.commit([scan_event(VOIDED, "c", NOON_MS + 2, attributes={"voids": "b"})])
    (first, *_) = desk.engine.scan_all(Table.EVENTS)
    desk.engine.write([(Table.EVENTS, [(first[0], None)])])
    with pytest.raises(DataDamaged):
        Desk(desk.engine)


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_may_keep_any_part_of_what_is_behind_the_checkpoint(seed: int) -> None:
    """Events without their statuses, statuses without their events: the log makes all of it again.

    And it goes on as if nothing had happened: late events are folded with all there were.
    """
    rng = Random(seed)
    desk, engine = busy_desk(seed, write_back_events=rng.choice([1, 40, 200]))
    more = {table: rng.randint(0, 6) for table in (Table.EVENTS, Table.STATUS)}
    survivor = engine.crash(keep_unlogged=more)
    again = Desk(survivor, write_back_events=40, cache_bytes=rng.choice([0, 1 << 20]))
    assert (again.rows(), again.events()) == (desk.rows(), desk.events())
    again.check()
    again.check_checkpoint()
    for n in range(20):
        code = rng.choice([SORTED, OUT, DELIVERED, VOIDED])
        attributes = {"voids": f"{rng.randrange(60)}-0"} if code == VOIDED else {}
        at, waybill = NOON_MS + rng.randrange(100), f"SF{rng.randrange(12):04}"
        again.commit([scan_event(code, f"later-{n}", at, waybill, attributes=attributes)])
    again.check()
    last = Desk(survivor.crash(keep_unlogged=more))
    last.check()
    last.checkpoint()
    assert Desk(last.engine).replayed == 0
    last.check_checkpoint()
    assert (last.rows(), last.events()) == (again.rows(), again.events())


@pytest.mark.parametrize("seed", range(3))
def test_data_of_an_earlier_version_is_brought_up_to_date(seed: int) -> None:
    """It logged what it wrote into the tables: all events are there, statuses may be behind.

    Its status rows hold a number where nothing is kept now.
    """
    rng = Random(seed)
    desk, engine = busy_desk(seed)
    expected = {key: records.decode_status(row) for key, row in desk.rows().items()}
    old = engine.crash()
    old.write([(Table.EVENTS, desk.events())])
    unused = records.STATUS_HEAD.size - 8 - 8 - 3
    rows = dict(old.scan_all(Table.STATUS))
    rows |= {key: row for key, row in desk.rows().items() if rng.random() < 0.5}
    noisy = [(key, row[:unused] + b"\x07" * 8 + row[unused + 8 :]) for key, row in rows.items()]
    old.write([(Table.STATUS, noisy)])
    again = Desk(old)
    assert {key: records.decode_status(row) for key, row in again.rows().items()} == expected
    assert again.events() == desk.events()
    again.check()
    again.checkpoint()
    once_more = Desk(old.crash())
    assert once_more.replayed == 0
    once_more.check()
    once_more.check_checkpoint()


@pytest.mark.parametrize("block", [b"", b"\x01", b"\x01" * 40, b"\x63" + bytes(30)])
def test_a_log_that_cannot_be_read_is_damaged(block: bytes) -> None:
    """Whatever stands where a block should be."""
    desk, engine = busy_desk(2)
    engine.write([(Table.LOG, [(position_key(desk.planner.position + 5), block)])])
    with pytest.raises(DataDamaged):
        Desk(engine)


def test_an_empty_store_begins_at_nothing() -> None:
    """Position 0, no recorded time, no statuses."""
    engine = MemoryEngine()
    assert (replay.last_position(engine), replay.checkpoint_of(engine)) == (0, 0)
    assert replay.last_recorded_at_ms(engine) == 0
    assert Desk(engine).rows() == {}


# After an accepted loss.


def lose(engine: MemoryEngine, rng: Random) -> MemoryEngine:
    """A survivor that lacks half of its statuses, half of its log and a few of its events."""
    survivor = engine.crash(keep_unlogged={table: rng.randint(0, 4) for table in Table})
    for table, share in ((Table.STATUS, 0.5), (Table.LOG, 0.5), (Table.EVENTS, 0.1)):
        lost = [(key, None) for key, _ in survivor.scan_all(table) if rng.random() < share]
        survivor.write([(table, lost)])
    return survivor


def left_in(engine: MemoryEngine) -> list[ScanEvent]:
    """The events of the table, and those of the log behind the checkpoint, in order."""
    rows = dict(engine.scan_all(Table.EVENTS))
    for key, block in engine.scan_all(Table.LOG, position_key(replay.checkpoint_of(engine) + 1)):
        for entry in records.decode_block(position_of(key), block):
            event = parse_event(entry.event)
            rows.update([replay.event_row(status_key(event.waybill_number), entry, event)])
    return without_times(rows[key] for key in sorted(rows))


def without_times(rows: Iterable[bytes]) -> list[ScanEvent]:
    """Stored events as their senders sent them."""
    events = [parse_event(stored) for stored in rows]
    for event in events:
        event.ClearField("recorded_at_ms")
    return events


@pytest.mark.parametrize("seed", range(10))
def test_a_rebuild_makes_everything_follow_from_the_events_that_are_left(seed: int) -> None:
    """Log, statuses and positions are as if just these events had come; none is gone or doubled."""
    _, engine = busy_desk(seed)
    survivor = lose(engine, Random(seed))
    left = left_in(survivor)
    assert rebuild(survivor, NOON_MS + 1_000) == len(left)
    survivor = survivor.crash()
    desk = Desk(survivor)
    assert desk.replayed == 0
    desk.check()
    desk.check_checkpoint()
    assert sum(1 for _ in desk.log()) == len(left)
    assert without_times(stored for _, stored in survivor.scan_all(Table.EVENTS)) == left


class _Interrupted(Exception):
    """The process ended here."""


class EndingEngine(MemoryEngine):
    """Ends at one of its writes; has what another engine left."""

    def __init__(self, left: MemoryEngine, writes: int) -> None:
        super().__init__()
        left._leave_to(self, 0, {})
        self._writes = writes

    def write(self, batch: Sequence[tuple[Table, Rows]]) -> None:
        """See Engine."""
        self._count()
        super().write(batch)

    def write_unlogged(self, batch: Sequence[tuple[Table, Rows]]) -> int:
        """See Engine."""
        self._count()
        return super().write_unlogged(batch)

    def _count(self) -> None:
        self._writes -= 1
        if self._writes < 0:
            raise _Interrupted


@pytest.mark.parametrize("seed", range(2))
def test_a_rebuild_may_be_interrupted_anywhere(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one finds every event that was left, whatever of the first reached the disk."""
    monkeypatch.setattr(rebuild_module, "_EVENTS_AT_A_TIME", 60)
    rng = Random(seed)
    _, engine = busy_desk(seed)
    damaged = lose(engine, rng)
    left = left_in(damaged)
    for writes in range(1_000):
        ending = EndingEngine(damaged.crash(1_000), writes)
        try:
            rebuild(ending, NOON_MS + 1_000)
        except _Interrupted:
            more = {table: rng.randint(0, 4) for table in Table}
            survivor = ending.crash(rng.randint(0, 9), more)
            assert rebuild(survivor, NOON_MS + 2_000) == len(left)
            survivor = survivor.crash()
            assert without_times(stored for _, stored in survivor.scan_all(Table.EVENTS)) == left
            Desk(survivor).check_statuses()
        else:
            assert writes > 12
            return


def test_a_block_that_cannot_be_read_costs_a_rebuild_its_own_events_only() -> None:
    """Those of the log behind it are saved, though they are not in the table yet."""
    desk = Desk(engine := MemoryEngine())
    for n in range(5):
        desk.commit([scan_event(SORTED, f"{n}-a", NOON_MS + n), scan_event(OUT, f"{n}-b")])
    survivor = engine.crash()
    survivor.write([(Table.LOG, [(position_key(4), b"\x63" + bytes(30))])])
    assert rebuild(survivor, NOON_MS) == 8
    ids = {event.event_id for event in Desk(survivor).timeline()}
    assert ids == {f"{n}-{place}" for n in (0, 2, 3, 4) for place in "ab"}


def test_a_rebuild_that_was_interrupted_is_run_again() -> None:
    """From anywhere: it begins by deleting what it builds."""
    _, engine = busy_desk(3)
    rebuild(engine, NOON_MS)
    expected = Desk(engine).rows()
    survivor = lose(engine, Random(1)).crash(1_000)
    survivor.write([(Table.EVENTS, list(engine.scan_all(Table.EVENTS)))])
    rebuild(survivor, NOON_MS)
    assert Desk(survivor).rows() == expected
    rebuild(survivor, NOON_MS)
    assert Desk(survivor).rows() == expected


def test_a_rebuild_takes_no_event_for_its_own_repeat() -> None:
    """Two ids of one fingerprint are two events; a waybill with too many events keeps them all."""
    one, other = twins()
    desk = Desk()
    events = [scan_event(SORTED, one), scan_event(OUT, other, NOON_MS + 1)]
    for event in events:
        desk.commit([event])
    assert rebuild(desk.engine, NOON_MS) == 2
    assert Desk(desk.engine).row().event_count == 2


def test_a_rebuilt_status_has_the_waybills_fingerprints() -> None:
    """So that repeats are still recognised."""
    desk, engine = busy_desk(4)
    events = [parse_event(stored) for _, stored in desk.events()]
    rebuild(engine, NOON_MS)
    again = Desk(engine)
    for event in events:
        repeat = ScanEvent()
        repeat.CopyFrom(event)
        repeat.ClearField("recorded_at_ms")
        assert again.commit([repeat])[0].duplicates == 1
    row = records.decode_status(again.rows()[status_key(events[0].waybill_number)])
    assert len(row.fingerprints) == 4 * row.event_count


def test_events_with_fields_of_any_kind_are_replayed() -> None:
    """Unknown fields of every wire type, groups too, which only protobuf itself takes apart."""
    plain = scan_event(SORTED, "a", facility_code="HUB1").SerializeToString()
    unknown = [b"\xa0\x01\x05", b"\xa1\x01" + bytes(8), b"\xa5\x01" + bytes(4), b"\xa2\x01\x02hi"]
    group = b"\xa3\x01\x08\x01\xa4\x01"
    for more in (*unknown, group):
        desk = Desk(engine := MemoryEngine())
        desk.commit([ScanEvent.FromString(plain + more), scan_event(OUT, "b", NOON_MS + 1)])
        again = Desk(engine.crash())
        assert again.replayed == 2
        assert again.rows() == desk.rows()
        again.check()
