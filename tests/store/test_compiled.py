"""The compiled loops and the Python ones: the same bytes, whatever comes."""

import os
import struct
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_digest

from tests.harness.loops import LOOPS
from tests.store.desk import NOON_MS, Desk
from tests.store.test_planner import random_commits
from trackd import compiled
from trackd.domain.vocabulary import EventCode
from trackd.simulator.imperfections import Imperfections
from trackd.simulator.simulation import Simulation
from trackd.simulator.wire import scan_event
from trackd.store import ahead, planner, rows, statuses
from trackd.store.errors import DataDamaged
from trackd.store.keys import Table, status_key
from trackd.store.memory_engine import MemoryEngine
from trackd.v1.event_pb2 import ScanEvent

_compiled = compiled.load("trackd.store._planning")


def test_where_they_are_required_they_are_compiled() -> None:
    """CI installs with TRACKD_REQUIRE_COMPILED: there, nothing below may be passed over."""
    required = bool(os.environ.get("TRACKD_REQUIRE_COMPILED"))
    expected = ["python", "compiled"] if required or _compiled else ["python"]
    assert expected == LOOPS


def test_they_can_be_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRACKD_PURE_PYTHON is how to find out whether they are at fault."""
    monkeypatch.setenv(compiled.PURE_PYTHON, "1")
    assert not compiled.is_compiled()


def test_its_hash_is_that_of_the_library() -> None:
    """For each length it takes; a longer text is refused rather than hashed into something else."""
    if _compiled is None:
        return  # the test above says whether it may be missing
    rng = Random(64)
    for length in range(65):
        for _ in range(50):
            text = rng.randbytes(length)
            assert _compiled.digest(text) == xxh3_64_digest(text), text
    with pytest.raises(ValueError, match="65 bytes"):
        _compiled.digest(bytes(65))


def _key(rng: Random) -> bytes:
    """A key of a few hashes: many begin in one slot, and some have all of the hash in common."""
    home = rng.choice([0, 0, 1, 2, 0xFFFF]) << 48
    return (home | rng.randrange(3)).to_bytes(8, "big") + b"SF%02d" % rng.randrange(40)


@settings(max_examples=60)
@given(st.integers(0, 2**64 - 1))
def test_the_table_of_rows_is_a_dict(seed: int) -> None:
    """Through growth, overwriting and deletions among keys that collide."""
    if _compiled is None:
        return  # the test above says whether it may be missing
    rng, table, model = Random(seed), _compiled.Rows(), rows.Rows()
    for _ in range(rng.randint(1, 60)):
        keys = [_key(rng) for _ in range(rng.randint(1, 60))]
        if rng.random() < 0.1:
            keys += [rng.randbytes(12) for _ in range(1_000)]
        if rng.random() < 0.6:
            changed = {key: rng.randbytes(rng.randint(1, 9)) for key in keys}
            table.update(changed)
            model.update(changed)
        else:
            for key in keys:
                assert (key in table) == (key in model)
                if key in model:
                    del table[key], model[key]
                else:
                    with pytest.raises(KeyError):
                        del table[key]
        assert len(table) == len(model)
        assert table.get_all(keys) == model.get_all(keys)
        assert table.get_each([(0, key) for key in keys]) == model.get_all(keys)
        assert [table.get(key) for key in keys] == model.get_all(keys)
    assert {key: table[key] for key in table} == model
    with pytest.raises(KeyError):
        table[b"no such key"]


def test_they_write_the_same_bytes() -> None:
    """A thousand imperfect journeys in odd commits: every row of every table, from both."""
    arrivals = Simulation(5, NOON_MS, 20_000, Imperfections(), parcels=1_000).arrivals()
    events = [scan_event(arrival.scan) for arrival in arrivals]
    contents = []
    for loop in LOOPS:
        rng = Random(7)
        with pytest.MonkeyPatch.context() as patch:
            if loop == "python":
                patch.setattr(planner, "_compiled", None)
                patch.setattr(statuses, "StatusRows", rows.Rows)
                patch.setattr(statuses, "Ahead", ahead.Ahead)
            desk = Desk(write_back_events=1_000, cache_bytes=100_000, waybill_events_max=25)
            verdicts = [desk.commit(*commit) for commit in random_commits(rng, events)]
            accepted = sum(verdict.accepted for commit in verdicts for verdict in commit)
            before = desk.contents(), desk.rows(), desk.events()
            desk.checkpoint()
            contents.append((verdicts, before, desk.contents()))
    assert contents[0] == contents[-1]
    assert accepted > 10_000


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("length", [1, 10, 81, 90])
def test_a_row_that_ends_early_is_never_read_beyond_its_end(length: int) -> None:
    """Nor one of another format: its waybill's scans fail, and nothing of theirs is planned."""
    engine = MemoryEngine()
    desk = Desk(engine)
    event = ScanEvent(
        event_id="a",
        waybill_number="SF0001",
        code=int(EventCode.SORTED),  # type: ignore[arg-type]
        occurred_at_ms=NOON_MS,
        facility_code="HUB1",
    )
    desk.commit([event])
    desk.checkpoint()
    key = status_key("SF0001")
    row = engine.get(Table.STATUS, key)
    assert row is not None
    engine.write([(Table.STATUS, [(key, row[:length])])])
    again = Desk(engine)
    event.event_id = "b"
    with pytest.raises((DataDamaged, struct.error)):
        again.commit([event])
    assert again.planner.position == 1
