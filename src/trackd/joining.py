"""How a worker joins the others: where it listens, what its health says, how it stops with them.

Part of the wiring, for a process that a supervisor has started. Decides nothing about a call.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from trackd.address import Address, parse_address
from trackd.cluster.membership import Membership
from trackd.cluster.neighbours import Neighbours
from trackd.wire.calls import Calls
from trackd.wire.door import Door, health_of
from trackd.wire.errors import CallError

# How long a worker that stops alone still answers the others; and what is left of a call between
# workers when nobody waits for it any more.
_ALONE_GRACE_S = 1.0

_log = structlog.get_logger()


@contextlib.asynccontextmanager
async def neighbours_of(membership: Membership | None) -> AsyncIterator[Neighbours | None]:
    """The other workers meanwhile; None where there are none."""
    if membership is None:
        yield None
        return
    neighbours = Neighbours(membership.assignment)
    try:
        yield neighbours
    finally:
        await neighbours.close()


class AmongWorkers:
    """This worker's door, as one of several to the same rooms."""

    def __init__(
        self,
        membership: Membership,
        neighbours: Neighbours,
        door: Door,
        *,
        calls: Calls,
        peer_calls: Calls,
        settle: Callable[[], Awaitable[None]],
        grace_s: float,
    ) -> None:
        """calls: from outside; peer_calls: of the other workers.

        settle: has everything saved that callers have told and other workers have to hear of.
        """
        self._membership = membership
        self._neighbours = neighbours
        self._door = door
        self._calls = calls
        self._peer_calls = peer_calls
        self._settle = settle
        self._grace_s = grace_s

    def addresses(self, partition_count: int) -> list[str]:
        """Where clients find the owner of each partition."""
        assignment = self._membership.assignment
        return [assignment.advertised[assignment.owner(each)] for each in range(partition_count)]

    async def open(self) -> None:
        """Listens on the address of all and on its own. Raises RuntimeError."""
        assignment = self._membership.assignment
        public = parse_address(assignment.public)
        own = public._replace(port=parse_address(assignment.addresses[assignment.worker]).port)
        await self._door.open(str(public), str(own))

    @contextlib.asynccontextmanager
    async def serving(self, metrics: Address, partition_count: int) -> AsyncIterator[None]:
        """One of the workers that serve, until the block ends; then stopped with the others."""
        membership = self._membership

        async def states_changed() -> None:
            await self._neighbours.are_serving(membership.serving)
            taking = not self._calls.stopping.is_set()
            health = health_of(membership.serving, partition_count, taking=taking)
            await self._door.tell_health(health)

        async with membership.joined(states_changed):
            membership.tell("serving", metrics=str(metrics))
            try:
                yield
            finally:
                await self._stop()

    async def _stop(self) -> None:
        """First no calls from outside, then, when no worker has any, none from the others."""
        membership = self._membership
        self._calls.stopping.set()
        await self._door.set_serving(False)
        _log.info("stopping", running_calls=self._calls.running)
        with contextlib.suppress(TimeoutError, CallError):
            async with asyncio.timeout(self._grace_s):
                await self._calls.idle()
                await self._settle()
        membership.tell("drained")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s if membership.together else _ALONE_GRACE_S):
                await membership.close_told.wait()
        self._peer_calls.stopping.set()
        await self._door.close(_ALONE_GRACE_S, self._peer_calls.idle())
