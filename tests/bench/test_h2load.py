"""h2load as a check of our own generator: how it is called, and how what it says is read."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.h2load import H2loadFailed, command, grpc_body, read_output

ROOT = Path(__file__).parent.parent.parent

# What h2load 1.52 prints.
PRINTED = """
finished in 1.08s, 9263.44 req/s, 1.24MB/s
requests: 10000 total, 10000 started, 10000 done, 9998 succeeded, 2 failed, 0 errored, 0 timeout
status codes: 9998 2xx, 0 3xx, 0 4xx, 2 5xx
"""


def test_a_unary_call_is_a_post_with_five_bytes_before_the_message() -> None:
    """Not compressed, and the length of the message, big-endian."""
    assert grpc_body(b"abc") == b"\x00\x00\x00\x00\x03abc"
    assert grpc_body(b"x" * 258)[:5] == b"\x00\x00\x00\x01\x02"


def test_h2load_is_told_what_makes_it_grpc() -> None:
    """The headers of a call, the body's file, and the method's path on the server."""
    words = command("127.0.0.1:50551", "/a.B/C", Path("body"), calls=1_000, clients=4, streams=8)
    told = dict(zip(words[1:-1:2], words[2:-1:2], strict=True))
    headers = [words[at + 1] for at, word in enumerate(words) if word == "--header"]
    assert headers == ["content-type: application/grpc", "te: trailers"]
    assert (told["--requests"], told["--clients"]) == ("1000", "4")
    assert (told["--max-concurrent-streams"], told["--data"]) == ("8", "body")
    assert words[-1] == "http://127.0.0.1:50551/a.B/C"


def test_what_h2load_prints_is_read() -> None:
    """Its rate, and how many calls succeeded and failed; anything else is told as it is."""
    told = read_output(PRINTED)
    assert (told.calls_per_s, told.succeeded, told.failed) == (9263.44, 9998, 2)
    with pytest.raises(H2loadFailed, match="no figures: could not connect"):
        read_output("could not connect")


def test_without_h2load_the_package_is_named(tmp_path: Path) -> None:
    """A machine that has none is told what to install, and nothing is started."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.h2load"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "apt-get install nghttp2-client" in done.stderr
