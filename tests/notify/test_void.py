"""A waybill whose only scan was voided: what is told of it names no milestone, on any road."""

from pathlib import Path

import orjson
import pytest

from tests.feed.clocked import Clocked
from tests.store.desk import NOON_MS, scan_event
from trackd.domain.catalogue import Language, text
from trackd.domain.vocabulary import EventCode, Milestone
from trackd.feed.filters import Filter
from trackd.notify.messages.news import Kind, kind_of, news_of
from trackd.notify.payload import body_of
from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import Envelope


async def told_of_a_void(directory: Path) -> list[Change]:
    """PICKED_UP, its void, and PICKED_UP once more by another scan; all are news."""
    clocked = Clocked(directory)
    void = {"voids": "a"}
    for scan in (
        scan_event(EventCode.PICKED_UP, "a"),
        scan_event(EventCode.EVENT_VOIDED, "v", NOON_MS + 1, attributes=void),
        scan_event(EventCode.PICKED_UP, "b", NOON_MS + 2),
    ):
        await clocked.scans(scan)
    logged = clocked.partition.feed.read(0, entries_max=10).changes
    assert [Filter(news_only=True).matches(each) for each in logged] == [True, True, False]
    assert not Filter.of(milestones=[Milestone.PICKED_UP]).matches(logged[1])
    changes = [Change.FromString(each.wire()) for each in logged]
    await clocked.partition.close()
    return changes


@pytest.mark.usefixtures("loops")
async def test_a_void_of_the_only_scan_is_no_milestone_on_any_road(tmp_path: Path) -> None:
    """A correction, never the first occurrence of nothing; and nothing is announced twice."""
    _, voided, again = await told_of_a_void(tmp_path)
    assert (voided.milestone, voided.previous_milestone) == (0, int(Milestone.PICKED_UP))
    assert (voided.first_occurrence, voided.correction) == (False, True)
    assert (again.first_occurrence, again.correction) == (False, False)

    body = orjson.loads(body_of(voided, message_id="msg", envelope=Envelope.ENVELOPE_STANDARD))
    assert body["type"] == "shipment.corrected"
    assert body["data"]["milestone"] is None
    assert body["data"]["previous_milestone"] == "PICKED_UP"
    assert (body["data"]["first_occurrence"], body["data"]["correction"]) == (False, True)

    assert kind_of(voided) is Kind.CORRECTION
    assert news_of(voided).milestone is Milestone.UNSPECIFIED
    assert text(Milestone.UNSPECIFIED, Language.EN) == "No tracking information yet"
    assert kind_of(again) is Kind.STATUS
