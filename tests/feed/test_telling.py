"""The compiled telling of changes and the Python one say the same of any log."""

import pytest

from tests.harness.loops import LOOPS
from tests.store.desk import NOON_MS, Desk, scan_event
from tests.store.test_replay import busy_desk
from trackd.domain.vocabulary import EventCode, Flag
from trackd.feed import partition_feed, runs, wanted
from trackd.feed.change import LoggedChange, Source
from trackd.feed.filters import ALL, Filter
from trackd.feed.partition_feed import changes_of_block
from trackd.feed.runs import Run
from trackd.feed.wanted import Wanted
from trackd.store.errors import DataDamaged
from trackd.store.keys import Table, position_of
from trackd.v1.event_pb2 import ScanEvent
from trackd.v1.feed_pb2 import Change, ChangeRun

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


def logged(desk: Desk) -> list[LoggedChange]:
    """The changes that the log of a desk has."""
    source = Source("set/0.", desk.timelines.get)
    found: list[LoggedChange] = []
    for key, block in desk.engine.scan_all(Table.LOG):
        found += changes_of_block(block, position_of(key), source)
    return found


def told(desk: Desk) -> list[tuple[list[object], Change]]:
    """Everything that the log of a desk tells: each change's attributes and message."""
    return [
        ([getattr(each, name) for name in ATTRIBUTES], Change.FromString(each.wire()))
        for each in logged(desk)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_both_tell_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of corrections, late events and all the rest, to the last field."""
    desk, _ = busy_desk(seed)
    compiled = told(desk)
    monkeypatch.setattr(partition_feed, "_compiled", None)
    assert told(desk) == compiled
    assert len(compiled) > 30


def test_both_tell_events_of_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones, ones in other scripts, and ones with a group, which only protobuf takes apart."""
    plain = scan_event(EventCode.SORTED, "g", facility_code="HUB1").SerializeToString()
    desk = Desk()
    desk.commit(
        [
            scan_event(EventCode.PICKED_UP, "a", facility_code="上海", remark="破" * 500),
            ScanEvent.FromString(plain + b"\xa3\x01\x08\x01\xa4\x01"),
        ],
    )
    desk.commit([scan_event(EventCode.LOST, "b", NOON_MS + 1, facility_code="")])
    compiled = told(desk)
    assert [attributes[8] for attributes, _ in compiled] == ["上海", "HUB1", ""]
    monkeypatch.setattr(partition_feed, "_compiled", None)
    assert told(desk) == compiled


FILTERS = (
    Filter.of(waybill_numbers=["SF0000000001", "SF0000000002"], milestones=[30]),
    Filter.of(facility_codes=["HUB1", "上海", "B"]),
    Filter.of(milestones=[20, 50]),
    Filter.of(flags=[Flag.DAMAGED, Flag.DELAYED, Flag.LOST]),
    Filter.of(flags=[Flag.DAMAGED], milestones=[30]),
    Filter(news_only=True),
    Filter(news_only=True, facility_codes=frozenset({"A"})),
)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", range(3))
def test_who_wants_what(seed: int, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the index everybody finds what his filter matches, and nobody anything twice."""
    if loop == "python":
        monkeypatch.setattr(wanted, "_compiled", None)
    found = logged(busy_desk(seed)[0])
    index: Wanted[int] = Wanted()
    for number, each in enumerate([*FILTERS, *FILTERS, ALL]):
        index.add(number, each)
    index.remove(2, FILTERS[2])
    assert list(index.everything) == [2 * len(FILTERS)]
    matched = index.matched(found)
    for number, each in enumerate([*FILTERS, *FILTERS]):
        expected = [change for change in found if each.matches(change)] if number != 2 else []
        assert list(matched.get(number, [])) == expected, (number, each)
    for number, each in enumerate([*FILTERS, *FILTERS, ALL]):
        if number != 2:
            index.remove(number, each)
    assert not index.matched(found)
    assert not index.everything


@pytest.mark.parametrize("loop", LOOPS)
def test_a_run_is_filled_and_no_more(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, up to its bytes; but one change, however large; and none is none."""
    if loop == "python":
        monkeypatch.setattr(runs, "_compiled", None)
    found = logged(busy_desk(2)[0])
    wires = [each.wire() for each in found]
    assert len(wires) > 30
    for bytes_max in (1, len(wires[0]), sum(map(len, wires[:7])), 1 << 30):
        run = Run(bytes_max)
        count = run.add(found[:5])
        count += run.add(found[count:]) if count == 5 else 0
        size = sum(map(len, wires[:count]))
        assert count == 1 or size <= bytes_max
        assert count == len(wires) or size + len(wires[count]) > bytes_max
        told_of = [
            change.SerializeToString() for change in ChangeRun.FromString(run.wire()).changes
        ]
        assert told_of == [Change.FromString(wire).SerializeToString() for wire in wires[:count]]
    empty = Run(100)
    assert (empty.add([]), empty.wire(), empty.size) == (0, b"", 0)


def test_a_block_that_ends_early_is_damaged() -> None:
    """Whatever tells it."""
    desk, engine = busy_desk(1)
    key, block = next(iter(engine.scan_all(Table.LOG)))
    source = Source("set/0.", desk.timelines.get)
    for length in range(len(block)):
        with pytest.raises(DataDamaged):
            changes_of_block(block[:length], position_of(key), source)
