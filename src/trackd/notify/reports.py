"""The notifier's reports to the server: what was attempted, in batches.

They are for people to look at, so they wait for nobody: while the server cannot take them the
oldest are dropped and counted. What is delivered does not depend on them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from trackd.client.errors import TrackdError
from trackd.v1.notification_pb2 import DeliveryAttempt, RecordedDelivery

BATCH_MAX = 500
WAITING_MAX = 20_000
_INTERVAL_S = 0.25
_RETRY_S = 1.0
# How long the last reports may take.
_LAST_TIMEOUT_S = 5.0

Record = Callable[[Sequence[RecordedDelivery]], Awaitable[object]]


class Reports:
    """What is yet to be told. `keep_sending` tells it, until `stop`; `send_rest` the rest, once.

    A batch that is under way is not cancelled: nobody would know whether the server has it.
    """

    def __init__(self, record: Record) -> None:
        """record: hands a batch to the server; raises TrackdError."""
        self._record = record
        self._waiting: deque[RecordedDelivery] = deque(maxlen=WAITING_MAX)
        self._full = asyncio.Event()
        self._stopped = asyncio.Event()
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

    def stop(self) -> None:
        """`keep_sending` ends, after the batch that is under way."""
        self._stopped.set()
        self._full.set()

    async def keep_sending(self) -> None:
        """Tells what there is, again and again, until stopped."""
        while not self._stopped.is_set():
            try:
                async with asyncio.timeout(_INTERVAL_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            self._full.clear()
            if self._waiting and not await self._send_batch():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._stopped.wait()
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


@asynccontextmanager
async def going_out(reports: Reports) -> AsyncIterator[None]:
    """Reports go out meanwhile; at the end the rest of them."""
    sending = asyncio.ensure_future(reports.keep_sending())
    try:
        yield
    finally:
        reports.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_TIMEOUT_S):
                await asyncio.wait({sending})
                await reports.send_rest()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
