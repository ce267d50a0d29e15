"""trackd against a dict: any appends, reads, pages and reopenings, in any order.

Row 12 of the promises: repeats and conflicts across batches, partitions and restarts. Page tokens
are kept while new events arrive and the store is reopened, and go on where they were. A crash keeps
of what was written back past the log any part that it may.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import Serve
from tests.model.doors import (
    Door,
    Engines,
    InMemory,
    InProcess,
    Kept,
    OnDisk,
    OverASocket,
    Refused,
)
from tests.model.parcels import COMMON, Order, Parcels, order_of, without_server_fields
from trackd.domain.vocabulary import EventCode, Flag, Reason
from trackd.partition import PartitionOptions
from trackd.store.keys import Table
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus
from trackd.v1.ingest_pb2 import AppendEventsRequest
from trackd.v1.tracking_pb2 import (
    TIMELINE_ORDER_NEWEST_FIRST,
    TIMELINE_ORDER_OLDEST_FIRST,
    BatchGetStatusRequest,
    GetStatusRequest,
    GetTimelineRequest,
)

NOON_MS = 1_700_000_000_000
PARCELS = range(4)
IDS = [f"gun:{n}" for n in range(12)]
FACILITIES = ["", "HUB1", "上海"]

Token = tuple[int, bool, str, Order]


@st.composite
def scans(draw: st.DrawFn) -> tuple[int, str, dict[str, Any]]:
    """A parcel, how its number is written, and the fields of a valid event."""
    code = draw(st.one_of(st.sampled_from(COMMON), st.sampled_from(EventCode)))
    fields: dict[str, Any] = {
        "event_id": draw(st.sampled_from(IDS)),
        "code": int(code),
        "occurred_at_ms": NOON_MS + draw(st.integers(0, 4)),
        "facility_code": draw(st.sampled_from(FACILITIES)),
    }
    if draw(st.booleans()):
        fields["reason"] = int(draw(st.sampled_from(Reason)))
    if draw(st.integers(0, 9)) == 0:
        fields["recorded_at_ms"] = draw(st.integers(0, 2**63 - 1))
    if code == EventCode.EVENT_VOIDED:
        voids = draw(st.sampled_from([*IDS, "nobody"]).filter(lambda v: v != fields["event_id"]))
        fields["attributes"] = {"voids": voids}
    if code == EventCode.PROBLEM_RESOLVED and draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(Flag), min_size=1, max_size=3))
        fields["attributes"] = {"clears": ",".join(flag.name for flag in names)}
    return draw(st.sampled_from(PARCELS)), draw(st.sampled_from(["{}", " {}\t", "lower"])), fields


class Comparison(RuleBasedStateMachine):
    """Does to a server what it does to a dict, and compares every answer."""

    tokens: Bundle[Token] = Bundle("tokens")
    positions: Bundle[str] = Bundle("positions")

    def __init__(self, door: Callable[[], Door], name: Callable[[], str]) -> None:
        super().__init__()
        self.door = door()
        # Examples may share a server: each has parcels of its own.
        example = name()
        self.numbers = [f"SF{example}-{'0' * parcel}1" for parcel in PARCELS]
        self.parcels = Parcels()
        self.reopenings_left = 3

    def teardown(self) -> None:
        """Compares everything once more, and ends."""
        for parcel, newest_first in itertools.product(PARCELS, (False, True)):
            self.page(parcel, newest_first, 500, None)
        self.door.close()

    @initialize(target=positions)
    def begin(self) -> Any:
        """Nothing is known of the parcels yet."""
        self.everything_at_once()
        return multiple()

    # Writing.

    @rule(target=positions, batch=st.lists(scans(), min_size=1, max_size=12))
    def append(self, batch: list[tuple[int, str, dict[str, Any]]]) -> str:
        """Any events, many of them repeats and contradictions of earlier ones."""
        events = []
        for parcel, written, fields in batch:
            number = self.numbers[parcel]
            number = number.lower() if written == "lower" else written.format(number)
            events.append(ScanEvent(waybill_number=number, **fields))
        return self.send(events)

    @rule(target=positions, parcel=st.sampled_from(PARCELS), count=st.integers(1, 5))
    def append_again(self, parcel: int, count: int) -> Any:
        """What is there already, as a scanner does that was not answered."""
        events = list(self.parcels.events.get(self.numbers[parcel], {}).values())[-count:]
        return self.send(events) if events else multiple()

    def send(self, events: list[ScanEvent]) -> str:
        """Appends; the position."""
        accepted, duplicates, rejections = self.parcels.append(events)
        response = self.door.call(AppendEventsRequest(events=events))
        assert (response.accepted, response.duplicates) == (accepted, duplicates)
        assert [(r.index, int(r.reason)) for r in response.rejections] == rejections
        position: str = response.position
        return position

    @precondition(lambda self: self.reopenings_left)
    @rule(
        orderly=st.booleans(),
        kept=st.fixed_dictionaries(
            {table: st.integers(0, 3) for table in (Table.EVENTS, Table.STATUS)}
        ),
    )
    def reopen(self, orderly: bool, kept: Kept) -> None:
        """Ends it, in order or not; some times in an example, as it takes long."""
        self.reopenings_left -= 1
        self.door.reopen(orderly=orderly, kept=kept)

    # Reading.

    @rule(parcel=st.sampled_from(PARCELS), position=st.one_of(st.just(""), positions))
    def status(self, parcel: int, position: str) -> None:
        """One status, at least as fresh as something acknowledged."""
        number = self.numbers[parcel]
        request = GetStatusRequest(waybill_number=f" {number.lower()}", min_position=position)
        if self.parcels.events.get(number):
            self.compare(number, self.door.call(request).status)
        else:
            with pytest.raises(Refused, match="WAYBILL_NOT_FOUND"):
                self.door.call(request)

    def compare(self, number: str, status: ShipmentStatus) -> None:
        """Holds a status against the dict."""
        self.parcels.check_status(number, status)

    @invariant()
    def everything_at_once(self) -> None:
        """All statuses in one look-up, in another order, some twice."""
        asked = [*reversed(self.numbers), self.numbers[0], "SF-NOBODY"]
        response = self.door.call(BatchGetStatusRequest(waybill_numbers=asked))
        known = [n for n in reversed(self.numbers) if self.parcels.events.get(n)]
        assert [status.waybill_number for status in response.statuses] == known
        missing = [n for n in reversed(self.numbers) if n not in known]
        assert list(response.missing_waybill_numbers) == [*missing, "SF-NOBODY"]
        for number, status in zip(known, response.statuses, strict=True):
            self.compare(number, status)

    @rule(
        target=tokens,
        parcel=st.sampled_from(PARCELS),
        newest_first=st.booleans(),
        size=st.sampled_from([0, 1, 2, 3, 7, 500]),
    )
    def first_page(self, parcel: int, newest_first: bool, size: int) -> Any:
        """The beginning of a timeline."""
        return self.page(parcel, newest_first, size, None)

    @rule(target=tokens, token=consumes(tokens), size=st.sampled_from([1, 2, 3, 7, 500]))
    def next_page(self, token: Token, size: int) -> Any:
        """It goes on, whatever has happened since."""
        return self.page(token[0], token[1], size, token)

    def page(self, parcel: int, newest_first: bool, size: int, token: Token | None) -> Any:
        """Reads a page and compares it; the next page's token."""
        number = self.numbers[parcel]
        order = TIMELINE_ORDER_NEWEST_FIRST if newest_first else TIMELINE_ORDER_OLDEST_FIRST
        request = GetTimelineRequest(
            waybill_number=number,
            order=order,
            page_size=size,
            page_token=token[2] if token else "",
        )
        if not self.parcels.events.get(number):
            with pytest.raises(Refused, match="WAYBILL_NOT_FOUND"):
                self.door.call(request)
            return multiple()
        response = self.door.call(request)
        expected, more = self.parcels.page(
            number, newest_first=newest_first, after=token[3] if token else None, size=size or 100
        )
        assert [without_server_fields(event) for event in response.events] == expected
        assert bool(response.next_page_token) is more
        self.compare(number, response.status)
        if not more:
            return multiple()
        return parcel, newest_first, response.next_page_token, order_of(expected[-1])


def run(door: Callable[[], Door], *, examples: int, steps: int) -> None:
    """Compares, in so many examples of so many steps."""
    names = itertools.count(1)
    run_state_machine_as_test(
        cast(
            type[Comparison],  # it takes any function that makes a machine
            lambda: Comparison(door, lambda: f"{next(names):05}"),
        ),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )


def in_process(path: Path, engines: Engines) -> Callable[[], Door]:
    """Doors to partitions of their own, which write back all the time, a few events at once."""
    numbers = itertools.count()
    options = PartitionOptions(
        commit_events_max=4,
        waybill_events_max=10_000,
        status_cache_bytes=2_000,
        write_back_events=5,
    )
    return lambda: InProcess(path / f"{next(numbers)}", options, engines)


def test_trackd_equals_a_dict(tmp_path: Path) -> None:
    """On RocksDB, through the servicers, reopened in order and not."""
    (tmp_path / "data").mkdir()
    run(in_process(tmp_path / "data", OnDisk()), examples=20, steps=30)


def test_trackd_equals_a_dict_whatever_a_crash_keeps(tmp_path: Path) -> None:
    """On engines in memory that lose all, some or none of what was written past the log."""
    run(in_process(tmp_path, InMemory()), examples=20, steps=30)


def test_a_server_equals_a_dict(serve: Serve) -> None:
    """Over a real socket, stopped and killed; one server for all examples."""
    server = serve("--partitions", "3")
    run(lambda: OverASocket(server), examples=2, steps=25)


@pytest.mark.torture
def test_trackd_equals_a_dict_for_long(tmp_path: Path) -> None:
    """The same with many more examples; hypothesis prints what breaks it."""
    (tmp_path / "data").mkdir()
    run(in_process(tmp_path / "data", OnDisk()), examples=500, steps=60)
    run(in_process(tmp_path / "memory", InMemory()), examples=500, steps=60)


@pytest.mark.torture
def test_a_server_equals_a_dict_for_long(serve: Serve) -> None:
    """The same over a socket."""
    server = serve("--partitions", "3")
    run(lambda: OverASocket(server), examples=60, steps=60)
