"""The compiled telling of changes and the Python one say the same of any log."""

import pytest

from tests.store.desk import NOON_MS, Desk, scan_event
from tests.store.test_replay import busy_desk
from trackd.domain.vocabulary import EventCode
from trackd.feed import partition_feed
from trackd.feed.change import LoggedChange, Source
from trackd.feed.partition_feed import changes_of_block
from trackd.store.errors import DataDamaged
from trackd.store.keys import Table, position_of
from trackd.store.memory_engine import MemoryEngine
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.feed_pb2 import Change

ATTRIBUTES = (
    "position",
    "recorded_at_ms",
    "marks",
    "milestone_before",
    "milestone",
    "flags_before",
    "flags",
    "waybill_number",
    "facility_code",
    "key",
    "first_occurrence",
    "correction",
)


def told(engine: MemoryEngine) -> list[tuple[list[object], Change]]:
    """Everything that the log of an engine tells: each change's attributes and message."""
    source = Source("set/0.", lambda key: engine.get(Table.EVENTS, key))
    found: list[LoggedChange] = []
    for key, block in engine.scan_all(Table.LOG):
        found += changes_of_block(block, position_of(key), source)
    return [
        ([getattr(each, name) for name in ATTRIBUTES], Change.FromString(each.wire()))
        for each in found
    ]


@pytest.mark.parametrize("seed", range(6))
def test_both_tell_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of corrections, late events and all the rest, to the last field."""
    _, engine = busy_desk(seed)
    compiled = told(engine)
    monkeypatch.setattr(partition_feed, "_compiled", None)
    assert told(engine) == compiled
    assert len(compiled) > 30


def test_both_tell_events_of_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones, ones in other scripts, and ones with a group, which only protobuf takes apart."""
    plain = scan_event(EventCode.SORTED, "g", facility_code="HUB1").SerializeToString()
    desk = Desk(engine := MemoryEngine())
    desk.commit(
        [
            scan_event(EventCode.PICKED_UP, "a", facility_code="上海", remark="破" * 500),
            ScanEvent.FromString(plain + b"\xa3\x01\x08\x01\xa4\x01"),
        ],
    )
    desk.commit([scan_event(EventCode.LOST, "b", NOON_MS + 1, facility_code="")])
    compiled = told(engine)
    assert [attributes[8] for attributes, _ in compiled] == ["上海", "HUB1", ""]
    monkeypatch.setattr(partition_feed, "_compiled", None)
    assert told(engine) == compiled


def test_a_block_that_ends_early_is_damaged() -> None:
    """Whatever tells it."""
    _, engine = busy_desk(1)
    key, block = next(iter(engine.scan_all(Table.LOG)))
    source = Source("set/0.", lambda key: engine.get(Table.EVENTS, key))
    for length in range(len(block)):
        with pytest.raises(DataDamaged):
            changes_of_block(block[:length], position_of(key), source)
