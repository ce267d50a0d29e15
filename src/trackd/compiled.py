"""Which loops of the hot path are compiled.

Every scan passes two loops: the one that reads a batch (wire/scans.py) and the one that plans a
commit (store/planner.py), with the tables of rows that it looks into and adds to (store/rows.py,
store/ahead.py). Every look-up encodes a status (wire/answers.py), every timeline reads rows
(store/pages.py), every watch of the feed tells changes (feed/partition_feed.py, feed/wanted.py,
feed/runs.py), every start after a crash replays the log (store/replay.py). All are written in
Python, which says what they do, and once more in Cython (`*.pyx` beside them), in a quarter of the
time or less.

trackd is installed with the compiled ones where a C compiler and Python's headers are at hand, and
works without them. Nothing here knows what the loops do.
"""

import importlib
import os
from types import ModuleType

LOOPS = (
    "trackd.feed._telling",
    "trackd.store._ahead",
    "trackd.store._paging",
    "trackd.store._planning",
    "trackd.wire._reading",
    "trackd.wire._writing",
)
# Set to anything, it makes trackd do without the compiled loops, to tell what they are worth or
# whether they are at fault.
PURE_PYTHON = "TRACKD_PURE_PYTHON"


def load(name: str) -> ModuleType | None:
    """The compiled module of that name; None if there is none, or it is not wanted."""
    if os.environ.get(PURE_PYTHON):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def is_compiled() -> bool:
    """Whether the loops that are compiled are used."""
    return all(load(name) for name in LOOPS)
