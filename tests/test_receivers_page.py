"""docs/receivers.md: what it says of a webhook is so, and its three programs tell true from forged.

The programs are taken from the page and fed what the notifier's own code makes and signs.
"""

import base64
import importlib.util
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest

from tests.cli.conftest import ROOT
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, ReceivedBy
from trackd.notify.payload import PAYLOAD_BYTES_MAX, body_of, body_of_test
from trackd.notify.signing import signed_headers
from trackd.v1.event_pb2 import Receipt, ScanEvent, ShipmentStatus
from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import Envelope
from trackd.wire.endpoint_rules import RETRY_BACKOFF_MS

PAGE = (ROOT / "docs" / "receivers.md").read_text()
PROSE = " ".join(PAGE.split())
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
COMPILE_TIMEOUT_S = 600
STRANGER = "whsec_" + "A" * 32

Case = dict[str, Any]
"""secret, headers, body (Base64), genuine: what a program is given, and what it must say."""


def block(language: str) -> str:
    """The page's only program in a language."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def change() -> Change:
    """A change that has everything a webhook may tell."""
    event = ScanEvent(
        code=int(EventCode.DELIVERY_ATTEMPT_FAILED),  # type: ignore[arg-type]
        occurred_at_ms=1_794_383_998_120,
        facility_code="PEK-D03",
        next_facility_code="PEK-H01",
        reason=int(Reason.ADDRESS_INCOMPLETE),  # type: ignore[arg-type]
        receipt=Receipt(received_by=int(ReceivedBy.SELF)),  # type: ignore[arg-type]
    )
    return Change(
        position="b2f0c1/1.4711",
        waybill_number="SF1234567890",
        previous_milestone=int(Milestone.OUT_FOR_DELIVERY),  # type: ignore[arg-type]
        milestone=int(Milestone.DELIVERY_ATTEMPT_FAILED),  # type: ignore[arg-type]
        flags_raised=[int(Flag.ADDRESS_PROBLEM)],  # type: ignore[list-item]
        event=event,
        status=ShipmentStatus(
            flags=[int(Flag.DELAYED), int(Flag.ADDRESS_PROBLEM)],  # type: ignore[list-item]
            event_count=12,
        ),
        first_occurrence=True,
        recorded_at_ms=1_794_384_000_000,
    )


def body(kind: Literal["standard", "cloudevents", "test"] = "standard") -> bytes:
    """What the notifier would send."""
    if kind == "test":
        return body_of_test(message_id="msg_1", envelope=Envelope.ENVELOPE_STANDARD, at_ms=1)
    envelope = Envelope.ENVELOPE_STANDARD if kind == "standard" else Envelope.ENVELOPE_CLOUDEVENTS
    return body_of(change(), message_id="msg_1", envelope=envelope)


def cases() -> list[Case]:
    """Genuine webhooks of every kind, and every way to forge one."""
    now_s = int(time.time())

    def case(
        genuine: bool,
        *,
        secrets: tuple[str, ...] = (SECRET,),
        sent: bytes | None = None,
        at_s: int = now_s,
        **changed: str | None,
    ) -> Case:
        made = signed_headers(message_id="msg_1", body=body(), secrets=secrets, now_s=at_s)
        text = body() if sent is None else sent
        headers = {
            name: value
            for name, value in (made | {n.replace("_", "-"): v for n, v in changed.items()}).items()
            if value is not None
        }
        coded = base64.b64encode(text).decode()
        return {"secret": SECRET, "headers": headers, "body": coded, "genuine": genuine}

    def signed(text: bytes) -> Case:
        made = signed_headers(message_id="msg_1", body=text, secrets=(SECRET,), now_s=now_s)
        coded = base64.b64encode(text).decode()
        return {"secret": SECRET, "headers": made, "body": coded, "genuine": True}

    return [
        signed(body()),
        signed(body("cloudevents")),
        signed(body("test")),
        case(True, secrets=(STRANGER, SECRET)),
        case(True, secrets=(SECRET, OLD_SECRET)),
        case(True, at_s=now_s - 240),
        case(False, secrets=(STRANGER,)),
        case(False, sent=body().replace(b"SF1234567890", b"SF1234567891")),
        case(False, sent=body() + b" "),
        case(False, at_s=now_s - 400),
        case(False, at_s=now_s + 400),
        case(False, webhook_timestamp=str(now_s - 1)),
        case(False, webhook_timestamp="soon"),
        case(False, webhook_timestamp=None),
        case(False, webhook_id="msg_2"),
        case(False, webhook_id=None),
        case(False, webhook_signature=None),
        case(False, webhook_signature=""),
        case(False, webhook_signature="v1,"),
        case(False, webhook_signature="v1,!!!"),
        case(False, webhook_signature="v1a,AAAA v0,AAAA"),
    ]


def check(said: list[Any], given: list[Case]) -> None:
    """A program said of each case whether it is genuine: the webhook itself, or nothing."""
    for case, answer in zip(given, said, strict=True):
        expected = orjson.loads(base64.b64decode(case["body"])) if case["genuine"] else None
        assert answer == expected, case


def test_python_tells_true_from_forged(tmp_path: Path) -> None:
    """The page's program, as it stands there."""
    file = tmp_path / "verify.py"
    file.write_text(block("python"))
    spec = importlib.util.spec_from_file_location("verify", file)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    given = cases()
    said = [
        program.verify(case["secret"], case["headers"], base64.b64decode(case["body"]))
        for case in given
    ]
    check(said, given)


def told_by(command: list[str], given: list[Case], cwd: Path) -> list[Any]:
    """What a program in another language says, as JSON, of cases on its standard input."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        input=orjson.dumps(given),
        capture_output=True,
        timeout=COMPILE_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    answers = orjson.loads(ended.stdout)
    assert isinstance(answers, list)
    return answers


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js here")
def test_javascript_tells_true_from_forged(tmp_path: Path) -> None:
    """The same cases, by Node.js."""
    (tmp_path / "verify.mjs").write_text(block("javascript"))
    (tmp_path / "main.mjs").write_text(
        'import { readFileSync } from "node:fs";\n'
        'import { verify } from "./verify.mjs";\n'
        "const cases = JSON.parse(readFileSync(0));\n"
        "const bytes = (c) => Buffer.from(c.body, 'base64');\n"
        "const said = cases.map((c) => verify(c.secret, c.headers, bytes(c)));\n"
        "process.stdout.write(JSON.stringify(said));\n"
    )
    given = cases()
    check(told_by(["node", "main.mjs"], given, tmp_path), given)


GO_MAIN = """
package main

import (
	"encoding/json"
	"example/receiver"
	"net/http"
	"os"
)

func main() {
	var cases []struct {
		Secret  string
		Headers map[string]string
		Body    []byte
	}
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	said := make([]any, len(cases))
	for n, each := range cases {
		headers := http.Header{}
		for name, value := range each.Headers {
			headers.Set(name, value)
		}
		if webhook := receiver.Verify(each.Secret, headers, each.Body); webhook != nil {
			said[n] = webhook
		}
	}
	json.NewEncoder(os.Stdout).Encode(said)
}
"""


@pytest.mark.skipif(shutil.which("gofmt") is None, reason="there is no Go here")
def test_the_go_program_is_go(tmp_path: Path) -> None:
    """It can be read, and is formatted as Go's own tool does."""
    (tmp_path / "verify.go").write_text(block("go"))
    ended = subprocess.run(
        ["gofmt", "-l", "-e", "verify.go"], cwd=tmp_path, capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


@pytest.mark.torture
@pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go here")
def test_go_tells_true_from_forged(tmp_path: Path) -> None:
    """The same cases, by Go. Its first compilation takes as long as many other tests together."""
    (tmp_path / "receiver").mkdir()
    (tmp_path / "receiver" / "verify.go").write_text(block("go"))
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.21\n")
    (tmp_path / "main.go").write_text(GO_MAIN)
    given = cases()
    check(told_by(["go", "run", "."], given, tmp_path), given)


def _keys(document: dict[str, Any]) -> set[str]:
    return {
        name
        for key, value in document.items()
        for name in ({key} | (_keys(value) if isinstance(value, dict) else set()))
    }


def test_the_example_is_what_is_sent() -> None:
    """Field by field, value by value; only who took it is left out, as nobody did."""
    sent = orjson.loads(body())
    del sent["data"]["event"]["received_by"]
    assert orjson.loads(block("json")) == sent


def test_every_field_and_every_word_is_explained() -> None:
    """A field, a type, a milestone or a flag that is added is missing from the page until told."""
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    for name in _keys(orjson.loads(body())) - {"data"}:
        assert f"`{name}`" in table, name
    for name in _keys(orjson.loads(body("cloudevents"))):
        assert name in PAGE, name
    words = [each.name for kind in (Milestone, Flag, ReceivedBy) for each in kind if each]
    for word in words:
        assert f"`{word}`" in table, word
    source = (ROOT / "src/trackd/notify/payload.py").read_text()
    for kind in re.findall(r'"((?:shipment|trackd)\.\w+)"', source):
        assert f"`{kind}`" in table, kind


def test_the_bounds_are_those_of_the_code() -> None:
    """The schedule, the size of a body."""
    units = {"s": 1_000, "min": 60_000, "h": 3_600_000}
    told = re.search(r"comes again after (.*?), each by up to a fifth", PROSE)
    assert told
    waits = re.findall(r"(\d+) (s|min|h)\b", told[1])
    assert tuple(int(count) * units[unit] for count, unit in waits) == RETRY_BACKOFF_MS
    assert f"smaller than {PAYLOAD_BYTES_MAX // 1000} KB" in PROSE
    assert len(body()) < PAYLOAD_BYTES_MAX
