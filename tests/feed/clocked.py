"""A partition on disk whose clock is set by hand, with journeys to fill it."""

import shutil
from pathlib import Path

from tests.store.desk import NOON_MS, scan, scan_event
from trackd.domain.vocabulary import EventCode
from trackd.feed.live import Live
from trackd.feed.retention import KeptLog
from trackd.finding import Finding
from trackd.partition import Partition, PartitionOptions
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.keys import status_key
from trackd.store.space import SpaceGuard
from trackd.v1.event_pb2 import ScanEvent
from trackd.verify import PartitionCheck

CODES = (EventCode.PICKED_UP, EventCode.DAMAGED, EventCode.OUT_FOR_DELIVERY, EventCode.DELIVERED)


class Clocked:
    """A partition on disk whose clock is set by hand."""

    def __init__(
        self, path: Path, *, number: int = 0, write_back_events: int = 4, memory: int = 1 << 20
    ) -> None:
        self.path = path
        self.number = number
        self._options = PartitionOptions(
            commit_events_max=1_000,
            waybill_events_max=1_000,
            status_cache_bytes=1 << 20,
            write_back_events=write_back_events,
            feed_memory_bytes=memory,
        )
        self.now_ms = NOON_MS
        self.failures: list[Exception] = []
        self.space = SpaceGuard()
        self.partition = self.opened()

    def opened(self) -> Partition:
        """The partition, from what is on disk."""
        return Partition.open(
            self.number,
            RocksEngine(self.path / "data", EngineOptions(), SharedCache(1 << 20)),
            self._options,
            path=self.path / "data",
            mark_path=self.path / "mark",
            data_set_id="d",
            now_ms=lambda: self.now_ms,
            on_failure=self.failures.append,
            space=self.space,
        )

    async def journeys(self, count: int) -> None:
        """A day goes by with each scan; one commit a scan."""
        for number in range(count):
            for step, code in enumerate(CODES):
                event = scan_event(
                    code,
                    f"e{number}-{step}",
                    NOON_MS + number * 10 + step,
                    f"SF{number:010}",
                    facility_code=f"HUB{step}",
                )
                await self.partition.submit([scan(event)])
                self.now_ms += 86_400_000

    async def scans(self, *events: ScanEvent) -> None:
        """One commit."""
        await self.partition.submit([scan(event) for event in events])

    def live(self, *, heartbeat_s: float = 60.0) -> Live:
        """Who watches it, not running yet."""
        return Live([self.partition.watched()], heartbeat_s=heartbeat_s)

    async def trim(self, kept: KeptLog) -> int:
        """One turn of retention."""
        return await self.partition.retention(kept).trim(self.now_ms)

    def findings(self) -> list[Finding]:
        """What `trackd check` says of it."""
        check = PartitionCheck(
            0,
            self.partition.engine,
            partition_count=1,
            identity="d/0",
            acknowledged=self.partition.committer.durable_position,
            waybills_at_a_time=1_000,
        )
        return [each for each in check.run() if isinstance(each, Finding)]

    def row(self, number: int) -> bytes | None:
        """The status of one of the journeys."""
        return self.partition.statuses.get(status_key(f"SF{number:010}"))

    def timeline(self, number: int) -> list[bytes]:
        """The events of one of the journeys, in order."""
        page = self.partition.timeline_now(
            status_key(f"SF{number:010}"), limit=100, bytes_max=1 << 20
        )
        return page.events if page else []

    async def crash(self) -> None:
        """Goes on from what is on disk now, as if the process had just died."""
        left = Path(shutil.copytree(self.path, self.path.with_name(f"{self.path.name}-left")))
        await self.partition.close()
        self.path = left
        self.partition = self.opened()

    async def again(self) -> None:
        """A stop and a start."""
        await self.partition.close()
        self.partition = self.opened()
