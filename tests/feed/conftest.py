"""Partitions with a feed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.feed.clocked import Clocked


@pytest.fixture
async def clocked(tmp_path: Path) -> AsyncIterator[Clocked]:
    """An empty partition."""
    made = Clocked(tmp_path)
    yield made
    await made.partition.close()
