"""What the tests of the store share: an engine of either kind, which can be closed and reopened."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.engines import Kept, KeptInMemory, KeptOnDisk


@pytest.fixture(params=["rocks", "memory"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """An engine, once on disk and once in memory."""
    keeping: Kept = KeptOnDisk(tmp_path / "rocks") if request.param == "rocks" else KeptInMemory()
    yield keeping
    keeping.engine.close()
