"""`trackd receive` verifies, knows what it has had before, and prints what comes."""

import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook

from tests.cli.conftest import TIMEOUT_S, TRACKD, environment, run_here
from trackd.cli.receiver import BODY_BYTES_MAX

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = {
    "type": "shipment.milestone",
    "timestamp": "2026-11-11T08:00:00.000Z",
    "data": {
        "waybill_number": "SF1234567890",
        "milestone": "OUT_FOR_DELIVERY",
        "flags_raised": ["DELAYED"],
        "flags_cleared": [],
        "correction": False,
        "event_count": 12,
    },
}


class Receiving:
    """A `trackd receive` that runs."""

    def __init__(
        self, tmp: Path, *flags: str, lang: str = "C.UTF-8", printed: Path | None = None
    ) -> None:
        self._out = printed or tmp / "receive.out"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [TRACKD, "receive", "--listen", "127.0.0.1:0", *flags],
                stdout=out,
                stderr=subprocess.PIPE,
                env=environment("127.0.0.1:1", LANG=lang),
                text=True,
            )
        assert self.process.stderr is not None
        ready = re.search(r"ready: (http://\S+)", self.process.stderr.readline())
        assert ready
        self.url = ready[1]

    def post(
        self,
        body: Any = BODY,
        *,
        message_id: str = "msg_1",
        secret: str = SECRET,
        at: datetime | None = None,
    ) -> int:
        """Posts a signed webhook; the answer's status."""
        at = at or datetime.now(UTC)
        text = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {
            "Webhook-Id": message_id,
            "Webhook-Timestamp": str(int(at.timestamp())),
            "Webhook-Signature": Webhook(secret).sign(message_id, at, text.decode()),
        }
        request = urllib.request.Request(self.url, data=text, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def stop(self) -> list[str]:
        """Ctrl-C; the lines that it printed."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(TIMEOUT_S) == 130
        return self._out.read_text().splitlines()


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Any]:
    """Starts one; it is gone when the test is over."""
    started: list[Receiving] = []

    def start(*flags: str, **more: Any) -> Receiving:
        started.append(Receiving(tmp_path, *flags, **more))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        assert each.process.stderr is not None
        each.process.stderr.close()


def test_what_is_signed_is_taken_and_nothing_else(receiving: Any) -> None:
    """By any of its secrets; a wrong one, an old time and a changed body are answered 401."""
    running = receiving("--secret", SECRET, "--secret", OTHER, "--json")
    assert running.post() == 204
    assert running.post(message_id="msg_2", secret=OTHER) == 204
    stranger = "whsec_" + "A" * 32
    assert running.post(message_id="msg_3", secret=stranger) == 401
    old = datetime.now(UTC) - timedelta(minutes=6)
    assert running.post(message_id="msg_4", at=old) == 401
    assert running.post(b"x" * (BODY_BYTES_MAX + 1)) == 413
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(running.url, data=b"{}"), timeout=TIMEOUT_S)
    assert refused.value.code == 401
    lines = [orjson.loads(line) for line in running.stop()]
    assert [line["verified"] for line in lines] == [True, True, False, False, False]
    assert lines[0]["body"] == BODY
    assert lines[2]["body"] is None


def test_repeats_and_late_ones_are_told_apart_from_news(receiving: Any) -> None:
    """A repeat by its id, a late one by its count of events; both are answered as taken."""
    running = receiving("--secret", SECRET)
    assert running.post() == 204
    assert running.post() == 204
    late = {**BODY, "data": {**BODY["data"], "event_count": 11}}  # type: ignore[dict-item]
    assert running.post(late, message_id="msg_2") == 204
    news, repeat, outdated = running.stop()
    assert news == "204 verified   SF1234567890  Out for delivery  +Delayed"
    assert repeat == f"{news} (repeat)"
    assert outdated == f"{news} (outdated)"


def test_some_fail_on_purpose_and_come_again(receiving: Any) -> None:
    """Answered 500 before they count as taken, so that the next attempt is no repeat."""
    running = receiving("--fail-rate", "1", lang="zh_CN.UTF-8")
    assert running.post() == 500
    assert running.post(b"no JSON") == 500
    assert running.stop() == ["500 unverified failed on purpose"] * 2


def test_without_a_secret_it_says_so(receiving: Any) -> None:
    """What comes is printed in the language of the machine, and marked as unverified."""
    running = receiving(lang="zh_CN.UTF-8")
    assert "not verified" in running.process.stderr.readline()
    assert running.post() == 204
    assert running.post(b"no JSON", message_id="msg_2") == 400
    test = {"type": "trackd.test", "data": {"message": "A test of this endpoint."}}
    assert running.post(test, message_id="msg_3") == 204
    assert running.stop() == [
        "204 unverified SF1234567890  派送中  +延误",
        "400 unverified no JSON",
        "204 unverified A test of this endpoint.",
    ]


def test_it_ends_when_nobody_sees_what_it_prints(receiving: Any, tmp_path: Path) -> None:
    """What cannot be shown is not taken; `| head` ends it quietly, a full disk with a reason."""
    full = receiving(printed=Path("/dev/full"))
    full.process.stderr.readline()
    assert full.post() == 500
    assert full.process.wait(TIMEOUT_S) == 1
    assert full.process.stderr.read() == "trackd: [Errno 28] No space left on device\n"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    head = receiving(printed=pipe)
    head.process.stderr.readline()
    assert head.post() == 204
    os.close(reader)
    assert head.post(message_id="msg_2") == 500
    assert head.process.wait(TIMEOUT_S) == 0
    assert head.process.stderr.read() == ""


def test_what_cannot_work_is_said_at_once() -> None:
    """A secret that is none, a place that is taken."""
    for secret in ("whsec_§", "whsec_", "whsec_a"):
        wrong = run_here("receive", "--listen", "127.0.0.1:0", "--secret", secret)
        assert wrong.code == 2
        assert "§" not in wrong.err
    taken = run_here("receive", "--listen", "192.0.2.1:9")
    assert taken.code == 1
    assert "cannot listen on 192.0.2.1:9" in taken.err
