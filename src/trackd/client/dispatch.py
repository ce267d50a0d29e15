"""What waits in the outbox, handed to one uplink per owner of waybills.

Where one server owns everything, the one uplink carries straight from the outbox. Where several
share the waybills, scans are taken from the outbox in order and go to the lane of their owner, so
that an owner that is away holds up its own scans only. Order within a waybill is kept: all its
scans are in one lane. The outbox forgets in order, so it forgets up to the oldest scan that has no
answer; what was answered behind that one is sent again only by a scanner that starts anew, and
counts as a duplicate then.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from itertools import islice
from typing import Any

from grpc import aio

from trackd.client.backoff import Backoff
from trackd.client.channel import Channels
from trackd.client.errors import ServerUnavailable, TrackdError, error_of
from trackd.client.events import RejectedScan, kept_event
from trackd.client.options import AHEAD_EVENTS_MAX, TOPOLOGY_AGE_S, ScannerOptions
from trackd.client.outbox import Outbox
from trackd.client.topology import Topology
from trackd.client.uplink import ScanCounts, Uplink
from trackd.client.wakeup import Wakeup
from trackd.client.window import Entry, RejectedEntry

_LOG = logging.getLogger("trackd.client")

_TAKE_EVENTS = 1_000


_Settle = Callable[["Lane", int, Sequence[RejectedEntry]], Awaitable[None]]


class Lane:
    """The scans of one owner: answers to outbox.Outbox, with the sequences of the outbox proper."""

    def __init__(self, settled: int, settle: "_Settle") -> None:
        """Empty."""
        self.changed = Wakeup()
        self.settled = settled
        self.last = settled
        self.entries: deque[Entry] = deque()
        self._settle = settle

    def add(self, entry: Entry) -> None:
        """One more to send."""
        self.entries.append(entry)
        self.last = entry.sequence

    async def put(self, wires: Sequence[bytes]) -> None:
        """Never called: scans come from the outbox."""
        raise AssertionError(f"{len(wires)} scans were put into a lane")

    async def take(self, *, after: int, events_max: int, bytes_max: int) -> list[Entry]:
        """Reads from memory."""
        behind = (entry for entry in self.entries if entry.sequence > after)
        taken: list[Entry] = []
        taken_bytes = 0
        for entry in islice(behind, events_max):
            taken_bytes += len(entry.wire)
            if taken and taken_bytes > bytes_max:
                break
            taken.append(entry)
        return taken

    async def settle(self, *, through: int, rejected: Sequence[RejectedEntry]) -> None:
        """Has the outbox forget what it may."""
        await self._settle(self, through, rejected)

    def first_behind(self, sequence: int) -> int | None:
        """The oldest scan behind a sequence that has no answer yet."""
        return next((each.sequence for each in self.entries if each.sequence > sequence), None)

    def forget(self, through: int) -> None:
        """These are answered."""
        while self.entries and self.entries[0].sequence <= through:
            self.entries.popleft()

    def stop(self, why: Exception) -> None:
        """Never called: nobody waits for room in a lane."""
        raise AssertionError("a lane was stopped") from why


class Dispatch:
    """Carries what waits, over as many uplinks as there are owners. Used by one scanner.

    Promises what Uplink promises; a scan that was handed to a lane stays in the outbox until the
    outbox may forget it.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        channels: Channels,
        options: ScannerOptions,
        on_rejection: Callable[[RejectedScan], None] | None,
    ) -> None:
        """Idle until `run`."""
        self._outbox = outbox
        self._channels = channels
        self._options = options
        self._on_rejection = on_rejection
        self._backoff = Backoff(options.backoff)
        self._topology = Topology()
        self._uplinks: list[Uplink] = []
        # By owner; empty while one uplink carries straight from the outbox.
        self._lanes: dict[str, Lane] = {}
        # What was handed to lanes, and what the outbox was told to forget.
        self._dispatched = self._settled = outbox.settled
        self._settling = asyncio.Lock()
        # Fires when there is room in the lanes.
        self._room = Wakeup()
        # Rejected behind a scan that has no answer yet.
        self._rejected: list[RejectedEntry] = []
        # What uplinks counted that are no more: accepted, duplicates, rejected.
        self._counted = (0, 0, 0)
        self._finishing = False
        self._looking: asyncio.Task[None] | None = None
        self._layout_changed = asyncio.Event()
        self._error: TrackdError | None = None

    @property
    def link_error(self) -> TrackdError | None:
        """Why a link is down; None while all are up or nothing was sent yet."""
        errors = (uplink.link_error for uplink in self._uplinks)
        return self._error or next((error for error in errors if error), None)

    @property
    def settled(self) -> int:
        """The sequence up to which every scan has its answer."""
        return self._settled if self._lanes or not self._uplinks else self._uplinks[0].settled

    @property
    def counts(self) -> ScanCounts:
        """What became of the scans so far."""
        accepted, duplicates, rejected = self._counted_with_uplinks()
        in_lanes = self._in_lanes if self._lanes else 0
        begun = self._dispatched if self._lanes else self.settled
        return ScanCounts(
            accepted=accepted,
            duplicates=duplicates,
            rejected=rejected,
            waiting=self._outbox.last - begun + in_lanes,
        )

    def finish(self) -> None:
        """Lets `run` return once nothing waits."""
        self._finishing = True
        self._outbox.changed.fire()
        if not self._lanes:
            for uplink in self._uplinks:
                uplink.finish()

    async def run(self) -> None:
        """Carries until `finish`; raises only what trying again cannot mend, as a SpoolBroken."""
        try:
            while True:
                while self._outbox.last <= self.settled:
                    if self._finishing:
                        return
                    await self._outbox.changed.wait()
                topology = await self._told_topology()
                if topology is not None and await self._carry(topology):
                    return
        finally:
            if self._looking is not None:
                self._looking.cancel()
                await asyncio.wait([self._looking])

    # The layout.

    async def _told_topology(self) -> Topology | None:
        """How the waybills are shared; None, after a pause, if no server says."""
        try:
            topology = await self._channels.topology()
        except aio.AioRpcError as failure:
            error = error_of(failure)
            if not isinstance(error, ServerUnavailable):
                return Topology()  # it answers, but not this: it takes any scan
            if self._error is None:
                _LOG.warning("the link is down: %s", error)
            self._error = error
            self._outbox.changed.fire()
            await asyncio.sleep(self._backoff.next_s(at_least_ms=error.retry_after_ms))
            return None
        self._backoff.reset()
        return topology

    def _link_lost(self) -> None:
        """Perhaps because the waybills have other owners now: looks, beside the next attempts."""
        self._outbox.changed.fire()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_again())

    async def _look_again(self) -> None:
        with contextlib.suppress(aio.AioRpcError):
            topology = await self._channels.topology()
            if _shared(topology) != _shared(self._topology):
                self._layout_changed.set()
        await asyncio.sleep(TOPOLOGY_AGE_S)

    # While one layout holds.

    async def _carry(self, topology: Topology) -> bool:
        """Carries until all is done; False if the layout became another one before."""
        self._topology, self._error = topology, None
        self._layout_changed.clear()
        self._dispatched, self._rejected = self._settled, []
        work = self._begun_work()
        changed = asyncio.create_task(self._layout_changed.wait())
        tasks: set[asyncio.Task[Any]] = {asyncio.create_task(each) for each in work}
        try:
            while tasks and not changed.done():
                done, _ = await asyncio.wait({*tasks, changed}, return_when=asyncio.FIRST_COMPLETED)
                tasks -= done
                for task in done:
                    task.result()
            return not tasks
        finally:
            for task in (changed, *tasks):
                task.cancel()
            await asyncio.gather(changed, *tasks, return_exceptions=True)
            self._settled = self.settled
            self._counted = self._counted_with_uplinks()
            self._uplinks, self._lanes = [], {}

    def _begun_work(self) -> list[Coroutine[Any, Any, None]]:
        owners = _shared(self._topology) and self._topology.owners
        if not owners:
            self._uplinks = [self._uplink(self._outbox, self._channels.any)]
            if self._finishing:
                self._uplinks[0].finish()
            return [self._uplinks[0].run()]
        self._lanes = {owner: Lane(self._settled, self._settle) for owner in owners}
        self._uplinks = [
            self._uplink(lane, partial(self._channels.nearest_to, owner))
            for owner, lane in self._lanes.items()
        ]
        return [self._hand_out(), *(uplink.run() for uplink in self._uplinks)]

    def _uplink(self, outbox: Outbox, channel: Callable[[], aio.Channel]) -> Uplink:
        return Uplink(
            outbox=outbox,
            channel=channel,
            options=self._options,
            on_rejection=self._on_rejection,
            on_link_lost=self._link_lost,
        )

    async def _hand_out(self) -> None:
        """From the outbox to the lanes, in order; returns when it is to finish and all is there."""
        while True:
            if self._outbox.last <= self._dispatched:
                if self._finishing:
                    for uplink in self._uplinks:
                        uplink.finish()
                    return
                await self._outbox.changed.wait()
            elif self._in_lanes >= AHEAD_EVENTS_MAX:
                await self._room.wait()
            else:
                self._add(
                    await self._outbox.take(
                        after=self._dispatched,
                        events_max=min(_TAKE_EVENTS, AHEAD_EVENTS_MAX - self._in_lanes),
                        bytes_max=self._options.batch_bytes_max,
                    )
                )

    def _add(self, entries: Sequence[Entry]) -> None:
        touched = set()
        for entry in entries:
            number = kept_event(entry.wire).waybill_number
            lane = self._lanes[self._topology.owner_of(number)]
            lane.add(entry)
            touched.add(lane)
        self._dispatched = entries[-1].sequence
        for lane in touched:
            lane.changed.fire()

    async def _settle(self, lane: Lane, through: int, rejected: Sequence[RejectedEntry]) -> None:
        """Settles a lane; the outbox forgets up to the oldest scan of all lanes without answer."""
        async with self._settling:
            unanswered = [
                first
                for each in self._lanes.values()
                if (first := each.first_behind(through if each is lane else 0)) is not None
            ]
            upto = min(unanswered) - 1 if unanswered else self._dispatched
            waiting = [*self._rejected, *rejected]
            await self._outbox.settle(
                through=upto, rejected=[each for each in waiting if each.entry.sequence <= upto]
            )
            self._rejected = [each for each in waiting if each.entry.sequence > upto]
            self._settled = upto
            lane.forget(through)
        self._room.fire()

    @property
    def _in_lanes(self) -> int:
        return sum(len(lane.entries) for lane in self._lanes.values())

    def _counted_with_uplinks(self) -> tuple[int, int, int]:
        accepted, duplicates, rejected = self._counted
        for uplink in self._uplinks:
            told = uplink.counts
            accepted += told.accepted
            duplicates += told.duplicates
            rejected += told.rejected
        return accepted, duplicates, rejected


def _shared(topology: Topology) -> tuple[str, ...]:
    """The owner of each partition; nothing where all are one's, wherever that one is."""
    return topology.addresses if len(topology.owners) > 1 else ()
