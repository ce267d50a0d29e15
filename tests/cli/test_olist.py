"""Real shipments, dirty as they are: each can be tracked, and the impossible ones are flagged."""

import csv
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.cli.conftest import ROOT, Ran, run
from tests.harness.server import ServerProcess
from trackd.client import SyncFrontEnd
from trackd.client.front_end import Statuses
from trackd.domain.lifecycle import TERMINAL
from trackd.domain.vocabulary import EventCode, Flag, Milestone

OLIST = Path(
    os.environ.get("TRACKD_OLIST_CSV", ROOT.parent / "shared" / "data" / "olist_shipments.csv")
)
pytestmark = pytest.mark.skipif(not OLIST.is_file(), reason=f"{OLIST} is not there")

ZONE = ZoneInfo("America/Sao_Paulo")
Row = dict[str, str]


def moment(text: str) -> int:
    """A local time of the file in milliseconds since the epoch."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp() * 1000)


def life(row: Row) -> list[tuple[int, EventCode]]:
    """What happened to a shipment in the order of event time, as the mapping's comments say."""
    columns = {
        EventCode.REGISTERED: "purchased_at",
        EventCode.PICKED_UP: "handed_to_carrier_at",
        EventCode.DELIVERED: "delivered_at",
    }
    found = [(moment(row[column]), code) for code, column in columns.items() if row[column]]
    if row["status"] == "canceled":
        known = ("purchased_at", "approved_at", "handed_to_carrier_at")
        found.append((max(moment(row[name]) for name in known if row[name]), EventCode.CANCELLED))
    return sorted(found)


def end(row: Row) -> tuple[str, bool]:
    """The milestone that a life comes to, and whether anything was scanned after its end."""
    milestone, unexpected = Milestone.UNSPECIFIED, False
    for _, code in life(row):
        if milestone in TERMINAL:
            unexpected = True
        else:
            milestone = Milestone[code.name]
    return milestone.name, unexpected


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """The shipments of the file by waybill number."""
    with OLIST.open(newline="") as file:
        return {row["order_id"].upper(): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def ingests(
    server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Ran, Ran]]:
    """The file sent twice."""
    cwd = tmp_path_factory.mktemp("olist")
    # The file's own directory may be read-only, and nothing is to be left there anyway.
    words: list[object] = ["ingest", OLIST, "--mapping", ROOT / "examples" / "olist.toml", "--json"]
    words += ["--state", cwd, "--rejected", cwd / "rejected.jsonl"]
    first = run(*words, server=server.grpc, cwd=cwd)
    yield first, run(*words, server=server.grpc, cwd=cwd)
    assert not list(cwd.iterdir()), "nothing was rejected, and nothing is left to go on with"


@pytest.fixture(scope="module")
def statuses(server: ServerProcess, ingests: tuple[Ran, Ran], rows: dict[str, Row]) -> Statuses:
    """Where all shipments are after that."""
    with SyncFrontEnd(server.grpc) as front_end:
        return front_end.get_statuses(rows)


def test_every_event_is_stored_once_however_often_the_file_is_sent(
    ingests: tuple[Ran, Ran], rows: dict[str, Row]
) -> None:
    """The first run stores all, the second finds only duplicates; nothing is rejected."""
    events = sum(len(life(row)) for row in rows.values())
    first, second = (ran.document for ran in ingests)
    assert [ran.code for ran in ingests] == [0, 0]
    assert (first["accepted"], first["duplicates"], first["rejected"]) == (events, 0, 0)
    assert (second["accepted"], second["duplicates"], second["rejected"]) == (0, events, 0)


def test_every_shipment_can_be_tracked(statuses: Statuses, rows: dict[str, Row]) -> None:
    """With all its events, from the moment of the first, at the milestone its life comes to."""
    assert statuses.missing == []
    assert len(statuses.found) == len(rows)
    for status in statuses.found:
        row = rows[status.waybill_number]
        milestone, unexpected = end(row)
        assert Milestone(status.milestone).name == milestone, row
        assert [Flag(flag) for flag in status.flags] == [Flag.UNEXPECTED_SCAN] * unexpected, row
        assert status.event_count == len(life(row)), row
        assert status.first_event_at_ms == life(row)[0][0], row


def test_the_impossible_shipments_are_delivered_and_flagged(
    statuses: Statuses, rows: dict[str, Row]
) -> None:
    """Seven were delivered before they were handed over: nothing is dropped, and it shows."""
    impossible = {
        number
        for number, row in rows.items()
        if row["delivered_at"] and row["delivered_at"] < row["handed_to_carrier_at"]
    }
    assert len(impossible) == 7
    for status in statuses.found:
        if status.waybill_number in impossible:
            assert Milestone(status.milestone) is Milestone.DELIVERED
            assert Flag.UNEXPECTED_SCAN in map(Flag, status.flags)


def test_cancelled_orders_are_cancelled(statuses: Statuses, rows: dict[str, Row]) -> None:
    """As the file says, those that were delivered all the same included."""
    cancelled = [
        status for status in statuses.found if rows[status.waybill_number]["status"] == "canceled"
    ]
    assert len(cancelled) == 58
    assert {Milestone(status.milestone) for status in cancelled} == {Milestone.CANCELLED}
