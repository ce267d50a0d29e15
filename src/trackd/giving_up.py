"""A block that may take so long and no longer, whatever hangs in it.

Part of the wiring. RocksDB waits for a disk that hangs while it holds Python's lock, or in a thread
that Python waits for at its end: neither a timeout of the event loop nor an exception ends that.
"""

import asyncio
import contextlib
import faulthandler
import os
import sys
from collections.abc import Iterator

import structlog

from trackd import exits

# How much later the process ends that cannot even say so.
_MARGIN_S = 5.0

_log = structlog.get_logger()


@contextlib.contextmanager
def leaving_after(seconds: float) -> Iterator[None]:
    """Ends the process with exits.FAILED if the block takes longer; on the running event loop.

    Where Python's lock is held its threads are written to standard error instead of a log line.
    """

    def give_up() -> None:
        _log.error("files did not close in time: leaving", seconds=seconds)
        os._exit(exits.FAILED)

    in_order = asyncio.get_running_loop().call_later(seconds, give_up)
    # A thread of its own, which needs no lock; it ends the process with 1.
    faulthandler.dump_traceback_later(seconds + _MARGIN_S, exit=True, file=sys.stderr.fileno())
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        in_order.cancel()
