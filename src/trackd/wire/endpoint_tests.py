"""Tests of endpoints: asked for by somebody, made by a notifier, answered with what came of it.

They live in memory: whoever asked is waiting, and asks again if the server goes away.
"""

import asyncio
import secrets
import time

from trackd.v1.notification_pb2 import DeliveryAttempt, EndpointTest
from trackd.wire.errors import no_notifier, no_test_result

# An attempt takes at most 15 s.
RESULT_TIMEOUT_S = 25.0
# A notifier that asked for targets this long ago is about to ask again.
_NOTIFIER_GRACE_S = 5.0


class EndpointTests:
    """The tests that are under way. One event loop."""

    def __init__(self) -> None:
        self._waiting: list[EndpointTest] = []
        self._results: dict[str, asyncio.Future[DeliveryAttempt]] = {}
        self._polls = 0
        self._last_poll_s = float("-inf")

    # A notifier is there, as long as its call lasts and a little longer: `with self`. By hand, as a
    # CallError is frozen and contextlib's own way would set its traceback.

    def __enter__(self) -> None:
        self._polls += 1

    def __exit__(self, *_: object) -> None:
        self._polls -= 1
        self._last_poll_s = time.monotonic()

    @property
    def notifier_connected(self) -> bool:
        """Whether somebody is there to make a test."""
        return bool(self._polls) or time.monotonic() - self._last_poll_s < _NOTIFIER_GRACE_S

    @property
    def waiting(self) -> bool:
        """Whether there is a test for a notifier to take."""
        return bool(self._waiting)

    def take(self) -> list[EndpointTest]:
        """The tests that nobody has taken; they are the caller's now."""
        taken, self._waiting = self._waiting, []
        return taken

    def ask(self, endpoint_id: str) -> EndpointTest:
        """Asks for a test. Raises NO_NOTIFIER."""
        if not self.notifier_connected:
            raise no_notifier()
        test = EndpointTest(test_id=secrets.token_hex(8), endpoint_id=endpoint_id)
        self._results[test.test_id] = asyncio.get_running_loop().create_future()
        self._waiting.append(test)
        return test

    async def result(self, test: EndpointTest) -> DeliveryAttempt:
        """What came of a test. Raises NO_TEST_RESULT."""
        try:
            async with asyncio.timeout(RESULT_TIMEOUT_S):
                return await self._results[test.test_id]
        except TimeoutError:
            raise no_test_result() from None
        finally:
            del self._results[test.test_id]
            if test in self._waiting:
                self._waiting.remove(test)

    def answer(self, test_id: str, attempt: DeliveryAttempt) -> None:
        """A notifier tells; nobody may be waiting any more."""
        result = self._results.get(test_id)
        if result is not None and not result.done():
            result.set_result(attempt)
