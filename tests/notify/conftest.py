"""What tests of endpoints share: the stage of a module's own server."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.server import ServerProcess
from tests.notify.stage import Stage, stage_of


@pytest.fixture
async def stage(server: ServerProcess, tmp_path: Path) -> AsyncIterator[Stage]:
    """The module's server as a test has it for itself: no endpoint is left when it is over."""
    async with stage_of(server, tmp_path) as made:
        yield made
        for endpoint in await made.notifications.list():
            await made.notifications.delete(endpoint.id)
