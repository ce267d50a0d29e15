"""Endpoints that misbehave, and a notifier that has no patience with them, so that a test ends."""

import asyncio
from collections import Counter

from tests.notify import receiver as receivers
from tests.notify.receiver import Behaviour, Heard, answering

# An attempt may take half a second, and an endpoint that fails is soon asked again.
IMPATIENT = (
    *("--connect-timeout-s", "0.4", "--total-timeout-s", "0.4"),
    *("--breaker-pause-s", "0.05", "--breaker-pause-s-max", "0.1"),
)
MISBEHAVING: dict[str, Behaviour] = {
    "/hanging": receivers.hanging,
    "/trickling": receivers.trickling,
    "/failing": answering(500),
    "/throttling": answering(429, "Retry-After: 0"),
    "/redirecting": answering(302, "Location: /elsewhere"),
    "/resetting": receivers.resetting,
    "/babbling": receivers.babbling,
    "/boasting": receivers.flooding_headers,
    "/announcing": receivers.announcing,
}


def flapping(failures: int) -> Behaviour:
    """Fails the first attempts of each webhook, then takes it."""
    seen: Counter[str] = Counter()
    refuse, take = answering(500), answering(204)

    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> bool:
        seen[heard.headers["webhook-id"]] += 1
        well = seen[heard.headers["webhook-id"]] > failures
        return await (take if well else refuse)(heard, writer)

    return answer
