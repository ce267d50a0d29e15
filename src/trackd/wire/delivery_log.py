"""The latest attempts of every endpoint: bounded, the newest first, in memory and on disk.

    document = sequence u64 · (length u16 · DeliveryAttempt){…}     sequence: of the last one

One document for each endpoint, written again every few seconds while there is something new: a
crash loses those seconds of the log, which is for people to look at. What is delivered does not
depend on it.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Iterator
from struct import Struct

from trackd.store.documents import Documents
from trackd.store.errors import DataDamaged, SpaceLow
from trackd.v1.notification_pb2 import DeliveryAttempt

KIND = "deliveries"
SAVE_INTERVAL_S = 2.0

_SEQUENCE = Struct(">Q")
_LENGTH = Struct(">H")


class DeliveryLog:
    """The attempts of all endpoints. One event loop."""

    def __init__(self, documents: Documents, *, kept_max: int) -> None:
        """Reads what there is. kept_max: of each endpoint. Raises DataDamaged."""
        self._documents = documents
        self._kept_max = kept_max
        self._attempts: dict[str, deque[bytes]] = {}
        self._sequences: dict[str, int] = {}
        self._unsaved: set[str] = set()
        for endpoint_id, document in documents.list(KIND):
            try:
                (self._sequences[endpoint_id],) = _SEQUENCE.unpack_from(document)
                self._attempts[endpoint_id] = deque(_parts(document), kept_max)
            except (struct.error, ValueError) as error:
                raise DataDamaged(f"a delivery log cannot be read: {error}") from None

    def add(self, endpoint_id: str, attempt: DeliveryAttempt) -> None:
        """One more; the oldest makes room."""
        kept = self._attempts.get(endpoint_id)
        if kept is None:
            kept = self._attempts[endpoint_id] = deque(maxlen=self._kept_max)
        kept.append(attempt.SerializeToString())
        self._sequences[endpoint_id] = self._sequences.get(endpoint_id, 0) + 1
        self._unsaved.add(endpoint_id)

    def page(
        self, endpoint_id: str, *, size: int, before: int
    ) -> tuple[list[DeliveryAttempt], int]:
        """Up to `size` attempts before a sequence number (0: from the newest), the newest first,
        and the number to go on before; 0 when there is nothing left.
        """
        kept = self._attempts.get(endpoint_id) or deque()
        newest = self._sequences.get(endpoint_id, 0)
        oldest = newest - len(kept) + 1
        first = min(newest, before - 1) if before else newest
        last = max(first - size + 1, oldest)
        found = [
            DeliveryAttempt.FromString(kept[number - oldest])
            for number in range(first, last - 1, -1)
        ]
        return found, last if found and last > oldest else 0

    async def forget(self, endpoint_id: str) -> None:
        """An endpoint is gone, and its log with it."""
        self._attempts.pop(endpoint_id, None)
        self._sequences.pop(endpoint_id, None)
        self._unsaved.discard(endpoint_id)
        if self._documents.get(KIND, endpoint_id) is not None:
            await self._documents.put(KIND, {endpoint_id: None})

    async def save(self) -> None:
        """Writes what is new. A disk that is nearly full keeps its last space for parcels."""
        unsaved, self._unsaved = self._unsaved, set()
        changes: dict[str, bytes | None] = {
            endpoint_id: self._document(endpoint_id) for endpoint_id in unsaved
        }
        if changes:
            try:
                await self._documents.put(KIND, changes)
            except SpaceLow:
                self._unsaved |= unsaved & self._attempts.keys()

    async def keep_saving(self) -> None:
        """Saves again and again, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self.save()

    def _document(self, endpoint_id: str) -> bytes:
        parts = [_SEQUENCE.pack(self._sequences[endpoint_id])]
        for attempt in self._attempts[endpoint_id]:
            parts += (_LENGTH.pack(len(attempt)), attempt)
        return b"".join(parts)


def _parts(document: bytes) -> Iterator[bytes]:
    at = _SEQUENCE.size
    while at < len(document):
        (length,) = _LENGTH.unpack_from(document, at)
        at += _LENGTH.size
        yield document[at : at + length]
        at += length
