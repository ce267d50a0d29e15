"""What the client's tests share: a server that can fail, and a link that can be cut."""

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.fault_server import FaultServer
from tests.client.link import Link
from trackd.client import BackoffOptions, ScannerOptions

# Where `python -m tests.…` finds its modules.
ROOT = Path(__file__).parents[2]

# Quick enough for a test, and still exponential.
QUICK_BACKOFF = BackoffOptions(ms_initial=5, ms_max=100)


@pytest.fixture
def seed() -> int:
    """The seed of a long campaign: from the environment, or new; printed by the campaign."""
    given = os.environ.get("TRACKD_TEST_SEED") or os.environ.get("TRACKD_SEED")
    return int(given or random.SystemRandom().randrange(10**9))


@pytest.fixture
def quick() -> ScannerOptions:
    """Options under which a lost link is tried again at once."""
    return ScannerOptions(
        batch_events_max=20, batch_delay_ms_max=2, batches_in_flight_max=4, backoff=QUICK_BACKOFF
    )


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    """A server without faults yet."""
    async with FaultServer() as running:
        yield running


@pytest.fixture
async def link(server: FaultServer) -> AsyncIterator[Link]:
    """A link to the server, up."""
    async with Link(server.port) as relay:
        yield relay
