"""Quiet hours are quiet, caps hold, and what waits is told when it may go."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.notify.messages.conftest import HOUR_MS, NOON_MS, change
from trackd.notify.messages.news import Kind, news_of
from trackd.notify.messages.pacing import Pacing
from trackd.notify.messages.quiet_hours import QuietHours
from trackd.notify.messages.rate_cap import PROMISES_MAX, RateCap
from trackd.v1.notification_pb2 import Endpoint
from trackd.v1.notification_pb2 import QuietHours as QuietHoursMessage
from trackd.v1.notification_pb2 import RateCap as RateCapMessage

SHANGHAI = ZoneInfo("Asia/Shanghai")
ZONES = ["Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]
MINUTE_MS = 60_000


def at_ms(text: str, zone: str = "Asia/Shanghai", fold: int = 0) -> int:
    """A moment by the clock on a wall."""
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(moment.timestamp() * 1000)


def night(zone: str = "Asia/Shanghai") -> QuietHours:
    """From 22:00 until 08:00."""
    return QuietHours(from_minute=22 * 60, until_minute=8 * 60, zone=ZoneInfo(zone))


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-11-22 21:59:59", None),
        ("2026-11-22 22:00", "2026-11-23 08:00"),
        ("2026-11-22 23:59:59.999", "2026-11-23 08:00"),
        ("2026-11-23 00:00", "2026-11-23 08:00"),
        ("2026-11-23 07:59:59.999", "2026-11-23 08:00"),
        ("2026-11-23 08:00", None),
    ],
)
def test_a_night_ends_in_the_morning(now: str, end: str | None) -> None:
    """The first minute is in, the last is out; over midnight it is one night."""
    assert night().end_ms(at_ms(now)) == (at_ms(end) if end else None)


def test_quiet_hours_within_a_day() -> None:
    """A rest at noon ends the same day; hours of no length are never on."""
    rest = QuietHours(from_minute=12 * 60, until_minute=14 * 60, zone=SHANGHAI)
    assert rest.end_ms(NOON_MS) == NOON_MS + 2 * HOUR_MS
    assert rest.end_ms(NOON_MS - 1) is None
    never = QuietHours(from_minute=12 * 60, until_minute=12 * 60, zone=SHANGHAI)
    assert never.end_ms(NOON_MS) is None


def test_the_clock_on_the_wall_counts_where_clocks_change() -> None:
    """In Berlin the night to 29 March has 9 hours, that to 25 October 11."""
    for day, before, hours in (("29", "2026-03-28", 9), ("25", "2026-10-24", 11)):
        begin = at_ms(f"{before} 22:00", "Europe/Berlin")
        end = night("Europe/Berlin").end_ms(begin)
        assert end == at_ms(f"{before[:8]}{day} 08:00", "Europe/Berlin")
        assert end - begin == hours * HOUR_MS


def test_an_end_that_the_wall_shows_twice_is_the_one_to_come() -> None:
    """At the second 02:10 of the night when clocks go back, 02:30 is 20 minutes away."""
    hours = QuietHours(from_minute=60, until_minute=150, zone=ZoneInfo("Europe/Berlin"))
    second = at_ms("2026-10-25 02:10", "Europe/Berlin", fold=1)
    assert hours.end_ms(second) == second + 20 * MINUTE_MS


@given(
    now_ms=st.integers(1_700_000_000_000, 1_900_000_000_000),
    first=st.integers(0, 1439),
    last=st.integers(0, 1439),
    zone=st.sampled_from(ZONES),
)
def test_the_end_comes_within_a_day_and_is_not_quiet(
    now_ms: int, first: int, last: int, zone: str
) -> None:
    """Whatever the hours and the zone: nobody waits for ever, or is woken at the end."""
    hours = QuietHours(from_minute=first, until_minute=last, zone=ZoneInfo(zone))
    end_ms = hours.end_ms(now_ms)
    if end_ms is not None:
        assert now_ms < end_ms <= now_ms + 25 * HOUR_MS
        assert hours.end_ms(end_ms) is None


class Desk:
    """One recipient's cap, used as the sender does: what may go goes, the others come back."""

    def __init__(self, messages: int, per_ms: int) -> None:
        self.cap = RateCap(messages=messages, per_ms=per_ms)
        self.sent: list[tuple[int, str]] = []
        self.waiting: dict[str, int] = {}

    def ask(self, key: str, now_ms: int) -> None:
        """Sends it or has it wait."""
        may_ms = self.cap.time_for(key, now_ms=now_ms, not_before_ms=now_ms)
        self.waiting.pop(key, None)
        if may_ms > now_ms:
            self.waiting[key] = may_ms
        else:
            self.cap.took(key)
            self.sent.append((now_ms, key))

    def run_until_empty(self) -> None:
        """Everybody comes back when told to."""
        while self.waiting:
            key, due_ms = min(self.waiting.items(), key=lambda each: each[1])
            self.ask(key, due_ms)


@given(
    messages=st.integers(1, 5),
    per_ms=st.integers(1, 1_000),
    gaps=st.lists(st.integers(0, 700), min_size=1, max_size=40),
)
def test_no_time_of_any_length_sees_more_than_the_cap(
    messages: int, per_ms: int, gaps: list[int]
) -> None:
    """Everything goes in the end, once, in the order of asking, each at its second try or first."""
    desk = Desk(messages, per_ms)
    now_ms, asked = 0, []
    for number, gap in enumerate(gaps):
        now_ms += gap
        while desk.waiting and min(desk.waiting.values()) <= now_ms:
            key, due_ms = min(desk.waiting.items(), key=lambda each: each[1])
            desk.ask(key, due_ms)
        asked.append(str(number))
        desk.ask(str(number), now_ms)
    desk.run_until_empty()
    assert sorted(key for _, key in desk.sent) == sorted(asked)
    times = [at for at, _ in sorted(desk.sent)]
    for n in range(len(times) - messages):
        assert times[n + messages] - times[n] >= per_ms


def test_a_hundred_that_wait_do_not_come_back_at_once() -> None:
    """With 5 an hour each has a time of its own, 5 of them an hour; nobody waits a second time."""
    desk = Desk(5, HOUR_MS)
    for number in range(100):
        desk.ask(str(number), number)
    assert len(desk.sent) == 5
    assert len({*desk.waiting.values()}) >= 90
    for key, due_ms in sorted(desk.waiting.items(), key=lambda each: each[1]):
        desk.ask(key, due_ms + 7)  # a little late, as it goes
    assert len(desk.sent) == 100


def test_asking_early_changes_nothing_and_what_fails_leaves_its_room() -> None:
    """The time promised stays; a text that did not go does not count."""
    cap = RateCap(messages=1, per_ms=100)
    assert cap.time_for("a", now_ms=0, not_before_ms=0) == 0
    cap.took("a")
    assert cap.time_for("b", now_ms=10, not_before_ms=10) == 100
    assert cap.time_for("b", now_ms=20, not_before_ms=20) == 100
    assert cap.time_for("b", now_ms=130, not_before_ms=130) == 130
    cap.gave_back("b")
    assert cap.time_for("c", now_ms=131, not_before_ms=131) == 131


def test_promises_are_bounded() -> None:
    """Beyond the bound a text is told a time, but none is kept; what was idle holds nothing."""
    cap = RateCap(messages=1, per_ms=1_000)
    for number in range(PROMISES_MAX + 100):
        cap.time_for(str(number), now_ms=0, not_before_ms=0)
    last = cap.time_for("last", now_ms=0, not_before_ms=0)
    assert last == PROMISES_MAX * 1_000
    assert cap.time_for("other", now_ms=0, not_before_ms=0) == last
    later = (PROMISES_MAX + 5) * 1_000
    cap.time_for("again", now_ms=later, not_before_ms=later)
    cap.gave_back("again")
    assert cap.idle


def endpoint(*, quiet: bool = False, cap: int = 0) -> Endpoint:
    """Quiet from 22:00 until 08:00; so many an hour."""
    made = Endpoint(id="ep_1")
    if quiet:
        made.quiet_hours.CopyFrom(QuietHoursMessage(from_minute=1320, until_minute=480))
    if cap:
        made.rate_cap.CopyFrom(RateCapMessage(messages=cap, per_ms=HOUR_MS))
    return made


def test_what_waited_for_the_morning_comes_at_the_pace_of_the_cap() -> None:
    """Quiet hours and cap together: the first at 08:00, none at night, and two an hour."""
    pacing = Pacing(default_zone="Asia/Shanghai", urgent=frozenset())
    now_ms = at_ms("2026-11-22 23:00")
    both = endpoint(quiet=True, cap=2)
    told = []
    for number in range(30):
        news = news_of(change(waybill=f"W{number:04}"))
        told.append(now_ms + pacing.wait_ms(both, news, now_ms=now_ms))
    assert told[0] == at_ms("2026-11-23 08:00")
    assert all(night().end_ms(each) is None for each in told)
    for n in range(len(told) - 2):
        assert sorted(told)[n + 2] - sorted(told)[n] >= HOUR_MS
    assert max(told) == at_ms("2026-11-24 08:00"), "more than a day's worth waits for another day"


def test_urgent_news_passes_quiet_hours_and_nothing_else() -> None:
    """Named kinds go at night; the cap holds for them, too."""
    pacing = Pacing(default_zone="Asia/Shanghai", urgent=frozenset({Kind.PROBLEM}))
    now_ms = at_ms("2026-11-22 23:00")
    both = endpoint(quiet=True, cap=1)
    calm = news_of(change(waybill="CALM"))
    assert pacing.wait_ms(both, calm, now_ms=now_ms) == 9 * HOUR_MS
    urgent = [
        news_of(change(waybill=f"W{n}", first=False, raised=(3,)))  # type: ignore[arg-type]
        for n in range(2)
    ]
    assert pacing.wait_ms(both, urgent[0], now_ms=now_ms) == 0
    pacing.ended(both, urgent[0], went=True)
    assert pacing.wait_ms(both, urgent[1], now_ms=now_ms) > 0


def test_no_settings_no_wait() -> None:
    """And a changed cap counts from anew."""
    pacing = Pacing(default_zone="Asia/Shanghai", urgent=frozenset())
    news = [news_of(change(waybill=f"W{n}")) for n in range(9)]
    for each in news:
        assert pacing.wait_ms(endpoint(), each, now_ms=NOON_MS) == 0
    for each in news[:2]:
        wait_ms = pacing.wait_ms(endpoint(cap=1), each, now_ms=NOON_MS)
        pacing.ended(endpoint(cap=1), each, went=not wait_ms)
    assert wait_ms == HOUR_MS
    assert pacing.wait_ms(endpoint(cap=2), news[3], now_ms=NOON_MS) == 0
    assert datetime.fromtimestamp(NOON_MS / 1000, UTC).hour == 4
