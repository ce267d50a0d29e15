"""A courier network's scans to a server: the last days at a steady rate, then each when it happens.

The hubs of the network each have a stream of their own, as scanners would. Knows no terminal.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from zlib import crc32

from trackd.client.options import ScannerOptions
from trackd.client.scanner import Scanner
from trackd.simulator.imperfections import Arrival
from trackd.simulator.scan import Scan
from trackd.simulator.simulation import Simulation
from trackd.simulator.wire import scan_event

# A domestic journey takes two to four days and one abroad longer, so after six days parcels are at
# every stage, and the network makes as many new ones as it ends.
DAYS = 6
_DAY_MS = 86_400_000

_HUBS = 8
_HUB_SCANS_MAX = 500
_TICK_S = 0.02
_LATENCIES_KEPT = 2_000
_WAYBILLS_KEPT = 5_000


@dataclass(frozen=True, slots=True)
class Figures:
    """How it goes. Latencies are from a hub handing scans over until all of them are on disk."""

    sent: int
    accepted: int
    duplicates: int
    rejected: int
    ack_p50_ms: float
    ack_p99_ms: float
    at_ms: int  # the network's clock
    share: float  # of the days to catch up with, 0-1
    last: Scan | None


class Courier:
    """A network of one seed, opened on the running event loop with `async with`."""

    def __init__(self, server: str, *, seed: int, parcels: int, rate: int) -> None:
        """`parcels` in the days to catch up with; `rate` in scans a second while it does."""
        self._server = server
        self._rate = rate
        self._begin_ms = _now_ms()
        self._start_ms = self._begin_ms - DAYS * _DAY_MS
        simulation = Simulation(seed, self._start_ms, max(1, parcels // DAYS))
        self._arrivals = simulation.arrivals()
        self._next: Arrival = next(self._arrivals)
        self._sent = 0
        self._last: Scan | None = None
        self._scanners: list[Scanner] = []
        self._hubs: list[asyncio.Queue[Scan | None]] = []
        self._streams: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        # The waybills seen last, in that order; a dict because a set forgets the order.
        self.waybills: dict[str, None] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Opens the streams of the hubs."""
        for _ in range(_HUBS):
            scanner = Scanner(self._server, options=ScannerOptions(batch_delay_ms_max=1))
            await self._stack.enter_async_context(scanner)
            hub: asyncio.Queue[Scan | None] = asyncio.Queue(_HUB_SCANS_MAX)
            self._scanners.append(scanner)
            self._hubs.append(hub)
            self._streams.append(asyncio.create_task(self._stream(scanner, hub)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Sends what waits, and leaves when it is acknowledged; at once when something failed."""
        for hub, stream in zip(self._hubs, self._streams, strict=True):
            if error is None:
                await hub.put(None)
            else:
                stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=error is not None)
        await self._stack.__aexit__(kind, error, traceback)

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ends `catch_up` and `go_on`."""
        self._stopped.set()

    async def catch_up(self, tick: Callable[[Figures], None]) -> None:
        """Sends what has arrived until now, at the rate asked for; returns when it is stored."""
        began = time.monotonic()
        while self._next.at_ms <= _now_ms() and not self._stopped.is_set():
            due = round((time.monotonic() - began) * self._rate) - self._sent
            await self._send_due(at_most=due, until_ms=_now_ms())
            tick(self.figures())
            await asyncio.sleep(_TICK_S)
        for hub in self._hubs:
            await hub.join()

    async def go_on(self, tick: Callable[[Figures], None]) -> None:
        """Sends every scan when it arrives, until stopped."""
        while not self._stopped.is_set():
            await self._send_due(at_most=self._rate, until_ms=_now_ms())
            tick(self.figures())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), timeout=1.0)

    def figures(self) -> Figures:
        """How it goes by now."""
        counts = [scanner.counts for scanner in self._scanners]
        latencies = sorted(self._latencies) or [0.0]
        behind_ms = self._next.at_ms - self._start_ms
        return Figures(
            sent=self._sent,
            accepted=sum(count.accepted for count in counts),
            duplicates=sum(count.duplicates for count in counts),
            rejected=sum(count.rejected for count in counts),
            ack_p50_ms=latencies[len(latencies) // 2] * 1000,
            ack_p99_ms=latencies[len(latencies) * 99 // 100] * 1000,
            at_ms=min(self._next.at_ms, _now_ms()),
            share=min(1.0, behind_ms / (self._begin_ms - self._start_ms)),
            last=self._last,
        )

    async def _send_due(self, *, at_most: int, until_ms: int) -> None:
        """Hands arrivals to their hubs; waits where a hub is full."""
        for _ in range(at_most):
            if self._next.at_ms > until_ms:
                return
            scan = self._next.scan
            # A scan of a facility goes out by the stream of that facility's hub.
            await self._hubs[crc32(scan.facility_code.encode()) % _HUBS].put(scan)
            self._sent += 1
            self._last = scan
            self.waybills.pop(scan.waybill_number, None)
            self.waybills[scan.waybill_number] = None
            if len(self.waybills) > _WAYBILLS_KEPT:
                del self.waybills[next(iter(self.waybills))]
            self._next = next(self._arrivals)

    async def _stream(self, scanner: Scanner, hub: asyncio.Queue[Scan | None]) -> None:
        """One hub: sends what waits, and takes the time until it is on the server's disk."""
        while (scan := await hub.get()) is not None:
            batch, ended = [scan], False
            while not hub.empty() and not ended:
                more = hub.get_nowait()
                ended = more is None
                if more is not None:
                    batch.append(more)
            began = time.monotonic()
            await scanner.scan_many(map(scan_event, batch))
            await scanner.flush()
            self._latencies.append(time.monotonic() - began)
            for _ in batch:
                hub.task_done()
            if ended:
                return


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
