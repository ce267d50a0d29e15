"""Failpoints: armed by name and probability, they end the process as a kill would."""

import os
import signal
import subprocess
import sys

import pytest

from trackd.store.failpoint import NAMES


def reached(armed: str, name: str) -> subprocess.CompletedProcess[str]:
    """A process that is armed with one point, and reaches another."""
    program = f"from trackd.store import failpoint; failpoint.reach({name!r}); print('alive')"
    environment = {**os.environ, "TRACKD_FAILPOINT": armed}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_an_armed_point_kills(name: str) -> None:
    """By SIGKILL: nothing that runs at an exit has run."""
    assert reached(name, name).returncode == -signal.SIGKILL


def test_what_is_not_armed_is_passed() -> None:
    """Another point, a probability of nothing, or none at all."""
    for armed in ("after_write", "before_write:0", ""):
        assert reached(armed, "before_write").stdout == "alive\n"


def test_a_name_that_is_none_is_told() -> None:
    """Or a campaign would arm nothing, and prove nothing."""
    result = reached("befor_write:0.5", "before_write")
    assert result.returncode != 0
    assert "befor_write" in result.stderr
    assert all(name in result.stderr for name in NAMES)
