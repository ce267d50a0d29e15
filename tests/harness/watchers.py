"""Watchers that write down what they were told, connection by connection, for oracle I6."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import aio

from trackd.v1.feed_pb2 import (
    START_FROM_EARLIEST,
    Change,
    ChangeFilter,
    FeedStart,
    WatchChangesRequest,
    WatchChangesResponse,
)
from trackd.v1.feed_pb2_grpc import FeedServiceStub

_AGAIN_S = 0.02


def earliest() -> FeedStart:
    """Everything that is kept."""
    return FeedStart(**{"from": START_FROM_EARLIEST})  # type: ignore[arg-type]


def place_of(position: str) -> tuple[int, int]:
    """The partition and the position in a change's position, which a caller would not look into."""
    partition, _, number = position.rpartition("/")[2].partition(".")
    return int(partition), int(number)


@dataclass(slots=True)
class Told:
    """What one connection was told: changes in order, and the last resume token."""

    changes: list[Change] = field(default_factory=list)
    token: str = ""
    code: grpc.StatusCode | None = None


class Watcher:
    """Watches from the beginning, over as many connections as it takes."""

    def __init__(self, wanted: ChangeFilter | None = None) -> None:
        self.wanted = wanted
        self.connections: list[Told] = []

    async def watch(self, address: str, *, until_caught_up: bool = False) -> None:
        """Watches one server until it ends or is caught up; goes on where the last one ended."""
        token = next((each.token for each in reversed(self.connections) if each.token), "")
        start = FeedStart(resume_token=token) if token else earliest()
        told = Told()
        self.connections.append(told)
        async with aio.insecure_channel(address) as channel:
            stub: Any = FeedServiceStub(channel)
            call = stub.WatchChanges(WatchChangesRequest(filter=self.wanted, start=start))
            try:
                async for message in call:
                    self._take(told, message)
                    if until_caught_up and message.HasField("caught_up"):
                        return
            except aio.AioRpcError as error:
                told.code = error.code()
            finally:
                call.cancel()

    async def keep_watching(self, address: str) -> None:
        """Watches one server, again and again, until cancelled."""
        while True:
            await self.watch(address)
            await asyncio.sleep(_AGAIN_S)

    def _take(self, told: Told, message: WatchChangesResponse) -> None:
        told.changes += message.changes.changes
        told.token = message.resume_token

    @property
    def places(self) -> set[tuple[int, int]]:
        """Of every change that it was told."""
        return {place_of(each.position) for one in self.connections for each in one.changes}

    def expect_in_order(self) -> None:
        """I6: within a connection in order and once; after one, no further back than its token."""
        for told in self.connections:
            last: dict[int, int] = {}
            for change in told.changes:
                partition, position = place_of(change.position)
                assert position > last.get(partition, 0), change.position
                last[partition] = position

    def expect_each_follows(self) -> None:
        """Gap-free per waybill: each change begins where the one before it ended."""
        state: dict[str, tuple[int, set[int]]] = {}
        seen: set[tuple[int, int]] = set()
        for told in self.connections:
            for change in told.changes:
                if (place := place_of(change.position)) in seen:
                    continue  # a repeat after a reconnect
                seen.add(place)
                before = state.get(change.waybill_number, (0, set()))
                flags = set(change.status.flags)
                raised, cleared = set(change.flags_raised), set(change.flags_cleared)
                assert int(change.previous_milestone) == before[0], change
                assert (flags - raised) | cleared == before[1], change
                state[change.waybill_number] = int(change.milestone), {int(f) for f in flags}
