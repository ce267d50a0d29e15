"""The notifier's reports to the server: what was attempted, in batches.

They are for people to look at, so they wait for nobody: while the server cannot take them the
oldest are dropped and counted. What is delivered does not depend on them.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from trackd.client.errors import TrackdError
from trackd.v1.notification_pb2 import DeliveryAttempt, RecordedDelivery

BATCH_MAX = 500
WAITING_MAX = 20_000
_INTERVAL_S = 0.25
_RETRY_S = 1.0

Record = Callable[[Sequence[RecordedDelivery]], Awaitable[object]]


class Reports:
    """What is yet to be told. `keep_sending` tells it; `send_rest` the rest, once, at the end."""

    def __init__(self, record: Record) -> None:
        """record: hands a batch to the server; raises TrackdError."""
        self._record = record
        self._waiting: deque[RecordedDelivery] = deque(maxlen=WAITING_MAX)
        self._full = asyncio.Event()
        self.dropped = 0

    def add(self, endpoint_id: str, attempt: DeliveryAttempt, *, test_id: str = "") -> None:
        """One attempt, ended. A test is told at once: somebody waits for it."""
        if len(self._waiting) == WAITING_MAX:
            self.dropped += 1
        self._waiting.append(
            RecordedDelivery(endpoint_id=endpoint_id, delivery=attempt, test_id=test_id)
        )
        if test_id or len(self._waiting) >= BATCH_MAX:
            self._full.set()

    async def keep_sending(self) -> None:
        """Tells what there is, again and again, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_INTERVAL_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            if self._waiting and not await self._send_batch():
                await asyncio.sleep(_RETRY_S)
            if len(self._waiting) >= BATCH_MAX:
                self._full.set()

    async def send_rest(self) -> None:
        """Tells what is left, as far as the server takes it."""
        while self._waiting and await self._send_batch():
            pass

    async def _send_batch(self) -> bool:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        try:
            await self._record(batch)
        except TrackdError:
            room = WAITING_MAX - len(self._waiting)
            self.dropped += max(len(batch) - room, 0)
            self._waiting.extendleft(reversed(batch[-room:] if room else []))
            return False
        return True
