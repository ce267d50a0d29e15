"""A server watched while it is loaded: a line at intervals, and what the load cost it."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bench.batches import BatchMaker
from bench.load import Sent
from bench.process import machine_cpu_s, settle, usage_of

_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a load cost the server. CPU is per event answered, in µs.

    server_cpu_us: until the last answer. server_cpu_settled_us: until its background work had
    ended, too. others_cores: how many cores everything else on the machine used meanwhile.
    """

    server_cpu_us: float
    server_cpu_settled_us: float
    generator_cpu_us: float
    others_cores: float
    rss_bytes: int
    rss_bytes_max: int
    written_bytes: int


class Watch:
    """`async with` it around a load; `cost` afterwards.

    series: (seconds, value) of RSS and rate at intervals; and (events, µs), what one cost by how
    many there were already.
    """

    def __init__(self, pid: int, maker: BatchMaker) -> None:
        self._pid = pid
        self._maker = maker
        self.series: dict[str, list[tuple[float, float]]] = {
            "rss_bytes": [],
            "events_per_s": [],
            "cpu_us_by_events": [],
        }

    async def __aenter__(self) -> Self:
        self._began_at = time.perf_counter()
        self._machine_before = machine_cpu_s()
        self._before = usage_of(self._pid)
        self._printing = asyncio.ensure_future(self._print())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._printing.cancel()
        await asyncio.gather(self._printing, return_exceptions=True)
        if error is None:
            self._after = usage_of(self._pid)
            self._machine_after = machine_cpu_s()

    async def cost(self, sent: Sent, *, settle_seconds_max: float) -> Cost:
        """What the load cost; waits until the server's background work has ended."""
        settled = await settle(self._pid, seconds_max=settle_seconds_max)
        before, after = self._before, self._after
        server_cpu_s = after.cpu_s - before.cpu_s
        others_cpu_s = (
            self._machine_after - self._machine_before - server_cpu_s - sent.generator_cpu_s
        )
        return Cost(
            server_cpu_us=server_cpu_s / sent.answered * 1e6,
            server_cpu_settled_us=(settled.cpu_s - before.cpu_s) / sent.answered * 1e6,
            generator_cpu_us=sent.generator_cpu_s / sent.answered * 1e6,
            others_cores=max(0.0, others_cpu_s / sent.seconds),
            rss_bytes=settled.rss_bytes,
            rss_bytes_max=settled.rss_bytes_max,
            written_bytes=settled.written_bytes - before.written_bytes,
        )

    async def _print(self) -> None:
        last_at, made, cpu_s = self._began_at, self._maker.made, self._before.cpu_s
        while True:
            await asyncio.sleep(_INTERVAL_S)
            now, usage = time.perf_counter(), usage_of(self._pid)
            events, seconds, cpu = self._maker.made - made, now - last_at, usage.cpu_s - cpu_s
            elapsed_s = round(now - self._began_at, 1)
            self.series["rss_bytes"].append((elapsed_s, usage.rss_bytes))
            self.series["events_per_s"].append((elapsed_s, events / seconds))
            self.series["cpu_us_by_events"].append((self._maker.made, cpu / max(events, 1) * 1e6))
            print(
                f"{now - self._began_at:7.1f} s {events / seconds:9,.0f} events/s,"
                f" server {cpu / max(events, 1) * 1e6:6.2f} CPU µs/event"
                f" on {cpu / seconds:4.2f} cores, RSS {usage.rss_bytes / 2**20:6,.0f} MiB",
                flush=True,
            )
            last_at, made, cpu_s = now, self._maker.made, usage.cpu_s
