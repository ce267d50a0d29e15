"""One subscription in one partition, over a log that is trimmed under it."""

import pytest

from tests.store.desk import scan, scan_event
from tests.store.office import SORTED, Office, simulated
from trackd.feed.filters import ALL
from trackd.feed.lane import LaneBounds, LaneRules
from trackd.feed.partition_feed import PartitionFeed
from trackd.feed.share import Home, Share

RULES = LaneRules(ack_timeout_ms=1_000, max_attempts=2, retry_backoff_ms=(1,), supersede=False)
BOUNDS = LaneBounds(ahead_max=2, window_max=100, kept_max=100, parked_max=100)
ID = b"12345678"


def test_what_expires_before_it_is_read_is_counted_and_the_rest_is_delivered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also while reading pauses; across a restart too; what was read before is not lost."""

    async def test() -> None:
        office = Office(commit_events_max=1)
        for n in range(6):
            event = scan_event(SORTED, "e", waybill_number=f"SF{n:04}")
            await office.committer.submit([scan(event)])
        feed = PartitionFeed(
            office.engine,
            office.desk.timelines.get,
            position_prefix="set/0.",
            oldest_position=1,
            newest_position=6,
            memory_bytes=0,
        )
        home = Home(0, feed, office.engine, office.committer)

        def share() -> Share:
            return Share(home, ID, RULES, BOUNDS, name="share", start=0, now_ms=lambda: 0)

        one = share()
        one.lanes.feed(feed.read(0, entries_max=2).changes, 2)
        assert not one.may_read()
        feed.trimmed(5)
        one.let_go()
        one.let_go()
        assert (one.expired, one.lanes.progress.read_position) == (2, 4)
        taken = [item.position for item in one.lanes.take(9, 1, 0)]
        assert taken == [1, 2]
        for position in taken:
            one.lanes.ack(position, 1, 0)
        one.read(ALL)
        assert [item.position for item in one.lanes.take(9, 1, 0)] == [5, 6]
        await one.save()
        again = share()
        assert (again.expired, again.lanes.progress.cursor) == (2, 4)

    simulated(test)
    assert "went out of retention" in "".join(capsys.readouterr())
