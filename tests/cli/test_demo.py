"""`trackd demo` shows a newcomer parcels within moments, and what it prints works as printed."""

import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, TIMEOUT_S, TRACKD, Trackd, environment

RATE = ("--rate", "50000")
PLACES = ("--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0")


class Demo:
    """One run of the demo at a time, on one data directory, from the checkout."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._process: subprocess.Popen[str] | None = None
        self._out = data.with_name("demo.out")

    def start(self) -> list[str]:
        """Starts it; the commands that it prints once it has caught up."""
        with self._out.open("w") as out:
            self._process = subprocess.Popen(
                [TRACKD, "demo", "--data", self.data, *PLACES, *("--parcels", "300"), *RATE],
                cwd=ROOT,
                # As for a newcomer: the command is not on PATH.
                env=environment("127.0.0.1:1", PATH="/usr/bin:/bin"),
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        deadline = time.monotonic() + TIMEOUT_S
        while "Ctrl-C stops both" not in self.said:
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return [
            "." + line.partition(" .")[2] for line in self.said.splitlines() if " track " in line
        ]

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._out.read_text()

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ctrl-C; the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(TIMEOUT_S)

    def end(self) -> None:
        """Leaves nothing behind: the server goes with the demo."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """A demo on data of its own."""
    own = Demo(tmp_path / "data")
    yield own
    own.end()


@pytest.mark.skipif(
    Path(sys.executable).parent != ROOT / ".venv" / "bin",
    reason="not run from the checkout's .venv",
)
def test_the_commands_that_it_prints_work_as_printed(demo: Demo, trackd: Trackd) -> None:
    """Looked up from the checkout, each parcel is what the demo says; run again, there are more."""
    commands = demo.start()
    assert len(commands) >= 5
    shown = ""
    for command in commands[:2] + commands[-1:]:
        words = shlex.split(command)
        assert words[0] == ".venv/bin/trackd"
        ended = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, check=True, env=environment("")
        )
        shown += ended.stdout
    assert "Delivered" in shown
    assert "已签收" in shown
    assert "0 rejected" in demo.said
    webhooks = re.search(r"([\d,]+) webhooks received and verified, 0 repeats", demo.said)
    assert webhooks
    assert int(webhooks[1].replace(",", "")) > 100
    assert demo.said.count("  204 verified ") == 3
    assert demo.stop() == 0
    first = trackd("check", demo.data)
    assert (first.code, first.out) == (0, f"{demo.data}: all is well\n")
    again = demo.start()
    assert set(again).isdisjoint(commands), "a second run brings parcels of its own"
    assert " webhooks received and verified, 0 repeats" in demo.said
    assert demo.stop(signal.SIGTERM) == 0
    assert trackd("check", demo.data).code == 0


def test_a_taken_port_is_named_with_its_flag(trackd: Trackd, tmp_path: Path) -> None:
    """And nothing is started or written."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        for words in (("--grpc", place, *PLACES[2:]), (*PLACES[:2], "--metrics", place)):
            ran = trackd("demo", "--data", "data", *words)
            assert ran.code == 1
            assert f"{place} is taken" in ran.err
            assert words[words.index(place) - 1] in ran.err
    assert not list(tmp_path.iterdir())


def test_a_server_that_cannot_start_ends_the_demo(trackd: Trackd, tmp_path: Path) -> None:
    """With the server's own words and exit code."""
    (tmp_path / "data").write_text("not a directory")
    ran = trackd("demo", "--data", "data", *PLACES)
    assert ran.code != 0
    assert "the server ended with exit code" in ran.err
    assert "Traceback" not in ran.err
