"""What the servicers ask of a partition, wherever it is: in this process or with another worker.

Two things answer to it: `partition.Partition`, and `cluster.remote.RemotePartition` in its place.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from trackd.partition import TimelinePage
from trackd.store.planner import ScanTuple, Verdict
from trackd.wire.calls import Context


class PartitionAccess(Protocol):
    """A partition as a servicer sees it; what each method promises stands with Partition.

    Raises what Partition raises, or a CallError with UNAVAILABLE while its owner cannot be reached.
    """

    number: int

    @property
    def queued_events(self) -> int: ...
    def submit(self, scans: Sequence[ScanTuple]) -> "asyncio.Future[Verdict]": ...
    async def room(self, events_max: int) -> None: ...
    def status_now(self, key: bytes) -> bytes | None: ...
    def timeline_now(self, key: bytes, *, limit: int, bytes_max: int) -> TimelinePage | None: ...
    async def reached(self, position: int) -> bool: ...
    async def read_status(self, key: bytes) -> bytes | None: ...
    async def read_statuses(self, keys: Iterable[bytes]) -> dict[bytes, bytes]: ...
    async def read_timeline(
        self,
        key: bytes,
        *,
        after: bytes | None,
        newest_first: bool,
        limit: int,
        bytes_max: int,
    ) -> TimelinePage | None: ...


class ChangeFeed(Protocol):
    """What answers WatchChanges: for the partitions of this process, or for all of them."""

    async def watch_changes(self, request: bytes, context: Context) -> None: ...
