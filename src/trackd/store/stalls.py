"""Stalls: the engine takes nothing for a moment, and the same is written again until it does."""

import time
from collections.abc import Callable
from typing import TypeVar

from trackd.store.errors import WriteStalled

# How long a stalled write waits before it is tried again.
STALL_RETRY_S = 0.002

_Result = TypeVar("_Result")


def until_taken(write: Callable[[], _Result]) -> _Result:
    """What `write` returns once it is taken. Blocks: for a start, on which nobody waits yet."""
    while True:
        try:
            return write()
        except WriteStalled:
            time.sleep(STALL_RETRY_S)
