"""The client works on asyncio's own loop and on uvloop."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.conftest import ROOT


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_day_on_either_loop(loop: str, tmp_path: Path) -> None:
    """Scanning with a spool through faults and looking up gives the same on both."""
    day = subprocess.run(
        [sys.executable, "-m", "tests.client.day", loop, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (day.returncode, day.stdout.split()) == (0, [loop, "done"]), day.stderr
