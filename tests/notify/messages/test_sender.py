"""The sender: what is told, what waits, what is left out, and that nothing owed is forgotten."""

import pytest

from tests.notify.messages.conftest import (
    HOUR_MS,
    NOON_MS,
    WAYBILL,
    WebServer,
    change,
    notification,
    target,
)
from trackd.domain.catalogue import Language
from trackd.domain.vocabulary import Flag, Milestone
from trackd.notify.messages.news import Kind
from trackd.notify.messages.sender import MessageOptions, MessageSender
from trackd.notify.outcome import Outcome, Verdict
from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import QuietHours, RateCap, Target

NIGHT = QuietHours(from_minute=22 * 60, until_minute=8 * 60)


class Day:
    """A sender whose clock the test moves."""

    def __init__(self, web: WebServer, **options: object) -> None:
        self.now_ms = NOON_MS
        self.web = web
        self.sender = MessageSender(
            MessageOptions(schemes=("json",), allow_local=True, **options),  # type: ignore[arg-type]
            now_ms=lambda: self.now_ms,
        )

    def target(self, **settings: object) -> Target:
        """An endpoint at the web server."""
        return target(f"json://{self.web.place}/hook", **settings)

    async def tell(self, to: Target, of: Change | None) -> Outcome:
        """One attempt."""
        return await self.sender.send(to, notification(of))

    @property
    def subjects(self) -> list[str]:
        """What arrived."""
        return [str(each.document["title"]) for each in self.web.received]


@pytest.fixture
def day(web: WebServer) -> Day:
    """At noon in Shanghai."""
    return Day(web)


async def test_what_comes_at_night_is_told_in_the_morning(day: Day) -> None:
    """POSTPONED until 08:00, which is not a failure; at 08:00 it goes."""
    to = day.target(quiet_hours=NIGHT)
    day.now_ms += 11 * HOUR_MS  # 23:00
    outcome = await day.tell(to, change())
    assert (outcome.verdict, outcome.after_s) == (Verdict.POSTPONED, 9 * 3600)
    assert day.subjects == []
    day.now_ms += 9 * HOUR_MS
    assert (await day.tell(to, change())).verdict is Verdict.DELIVERED
    assert day.subjects == [f"运单 {WAYBILL}：派送中"]


async def test_a_cap_lets_the_rest_wait(day: Day) -> None:
    """The third of two an hour is told an hour later; a failed one has not used anything up."""
    to = day.target(rate_cap=RateCap(messages=2, per_ms=HOUR_MS))
    day.web.answers = [(500, {}, b""), (200, {}, b"")]
    assert (await day.tell(to, change(waybill="FAILS"))).verdict is Verdict.FAILED
    for waybill in ("W001", "W002"):
        assert (await day.tell(to, change(waybill=waybill))).verdict is Verdict.DELIVERED
    day.now_ms += 60_000
    late = await day.tell(to, change(waybill="W003"))
    assert (late.verdict, late.after_s) == (Verdict.POSTPONED, 59 * 60)
    day.now_ms += 59 * 60_000
    assert (await day.tell(to, change(waybill="W003"))).verdict is Verdict.DELIVERED


async def test_only_news_is_told_unless_everything_is_wanted(day: Day) -> None:
    """A milestone once more, or another facility, is left out without a word."""
    again = change(Milestone.OUT_FOR_DELIVERY, first=False)
    assert (await day.tell(day.target(), again)).verdict is Verdict.DROPPED
    assert day.subjects == []
    assert (await day.tell(day.target(all_changes=True), again)).verdict is Verdict.DELIVERED
    flagged = change(first=False, raised=(Flag.DAMAGED,))
    assert (await day.tell(day.target(), flagged)).verdict is Verdict.DELIVERED
    assert len(day.subjects) == 2


async def test_nobody_hears_of_the_road_after_the_arrival(day: Day) -> None:
    """What overtook a waiting text is told, and the older one is not."""
    to = day.target(quiet_hours=NIGHT)
    day.now_ms += 11 * HOUR_MS
    assert (await day.tell(to, change())).verdict is Verdict.POSTPONED
    day.now_ms += 9 * HOUR_MS
    assert (await day.tell(to, change(Milestone.DELIVERED))).verdict is Verdict.DELIVERED
    assert day.subjects == [f"运单 {WAYBILL}：已签收"]


async def test_urgent_kinds_are_a_setting(web: WebServer) -> None:
    """A problem wakes people where that is wanted; a milestone does not."""
    day = Day(web, urgent=frozenset({Kind.PROBLEM}))
    to = day.target(quiet_hours=NIGHT)
    day.now_ms += 11 * HOUR_MS
    lost = change(first=False, raised=(Flag.LOST,))
    assert (await day.tell(to, lost)).verdict is Verdict.DELIVERED
    assert (await day.tell(to, change())).verdict is Verdict.POSTPONED


async def test_a_test_is_made_at_once(day: Day) -> None:
    """Whatever the hour and the cap."""
    to = day.target(quiet_hours=NIGHT, language="en")
    day.now_ms += 11 * HOUR_MS
    assert (await day.tell(to, None)).verdict is Verdict.DELIVERED
    assert "test" in day.subjects[0]


async def test_a_city_is_told_where_it_is_known(web: WebServer) -> None:
    """By the table of the notifier, in the endpoint's language; a facility's code never."""
    cities = {"SHA-D07": {Language.ZH: "上海", Language.EN: "Shanghai"}}
    day = Day(web, cities=cities)
    await day.tell(day.target(language="en"), change())
    elsewhere = change(waybill="W001")
    elsewhere.event.facility_code = "PEK-D01"
    await day.tell(day.target(language="en"), elsewhere)
    known, unknown = (str(each.document["message"]) for each in web.received)
    assert "Place: Shanghai" in known
    assert "Place" not in unknown
    assert "PEK" not in unknown


async def test_what_cannot_be_told_is_said(day: Day) -> None:
    """A newer server's milestone is parked; a zone that is not known here is tried again."""
    newer = change()
    newer.milestone = 999  # type: ignore[assignment]
    assert (await day.tell(day.target(), newer)).verdict is Verdict.HOPELESS
    nowhere = day.target(quiet_hours=QuietHours(time_zone="Nowhere/Land"))
    assert (await day.tell(nowhere, change())).verdict is Verdict.FAILED
    assert day.subjects == []
