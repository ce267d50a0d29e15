"""The hot loops as tests take them: in Python and, where they were installed, compiled."""

from collections.abc import Iterator

import pytest

from trackd import compiled
from trackd.feed import partition_feed, runs, wanted
from trackd.store import ahead, engine, planner, replay, rows, statuses
from trackd.wire import answers, scans

LOOPS = ["python", "compiled"] if compiled.is_compiled() else ["python"]


@pytest.fixture(params=LOOPS, scope="module")
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a module's tests once for each kind of loop that there is."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setattr(partition_feed, "_compiled", None)
            patch.setattr(runs, "_compiled", None)
            patch.setattr(wanted, "_compiled", None)
            patch.setattr(engine, "_paging", None)
            patch.setattr(planner, "_compiled", None)
            patch.setattr(replay, "_compiled", None)
            patch.setattr(scans, "_compiled", None)
            patch.setattr(answers, "_compiled", None)
            patch.setattr(answers, "located", answers.located_plainly)
            patch.setattr(statuses, "StatusRows", rows.Rows)
            patch.setattr(statuses, "Ahead", ahead.Ahead)
        yield request.param
