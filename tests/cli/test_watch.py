"""`trackd watch` shows changes to people and programs, and goes on where it stopped."""

import os
import re
import signal
import subprocess
from pathlib import Path

import orjson

from tests.cli.conftest import TRACKD, Trackd, environment, run
from tests.cli.lines import jsonl, scan
from tests.harness.server import ServerProcess
from trackd.cli.watch import _keep


def ingested(trackd: Trackd, *scans: dict[str, object]) -> None:
    """Sends scans to the server."""
    assert trackd("ingest", "-", "--strict", stdin=jsonl(*scans)).code == 0


def test_changes_read_as_lines(trackd: Trackd) -> None:
    """When, which parcel, from where to where, what is wrong, why and where; one line each."""
    ingested(
        trackd,
        scan("WATCH-1", "a", "PICKED_UP", facility_code="SHA-01"),
        scan("WATCH-1", "b", "DAMAGED", minutes=1, facility_code="SHA-01"),
        scan("WATCH-1", "c", "DELIVERED", minutes=60, facility_code="PEK-01"),
    )
    asked = ("watch", "--from", "earliest", "--until-caught-up", "--waybill", "watch-1")
    ran = trackd(*asked, "--lang", "en")
    lines = [re.split(r"\s{2,}", line) for line in ran.out.splitlines()]
    assert ran.code == 0
    assert [line[1:] for line in lines] == [
        ["WATCH-1", "Picked up", "(Picked up)", "SHA-01"],
        ["WATCH-1", "Picked up", "⚑ Damaged", "(Parcel found damaged)", "SHA-01"],
        ["WATCH-1", "Picked up → Delivered", "(Delivered)", "PEK-01"],
    ]
    chinese = trackd(*asked, "--lang", "zh")
    assert "已签收" in chinese.out or "已送达" in chinese.out or "妥投" in chinese.out


def test_filters_and_documents(trackd: Trackd) -> None:
    """`--json` has the contract's names; options of one kind are ORed, kinds are ANDed."""
    ingested(
        trackd,
        scan("WATCH-2", "a", "PICKED_UP", facility_code="W2"),
        scan("WATCH-2", "b", "DELAYED", minutes=1, facility_code="W2"),
        scan("WATCH-3", "a", "PICKED_UP", facility_code="W3"),
        scan("WATCH-3", "b", "DELIVERED", minutes=5, facility_code="W3"),
    )
    asked = ("watch", "--from", "earliest", "--until-caught-up", "--json", "--facility", "W2")
    ran = trackd(*asked, "--facility", "W3", "--milestone", "delivered", "--milestone", "picked-up")
    shown = [orjson.loads(line) for line in ran.out.splitlines()]
    found = [(each["waybill_number"], each["event"]["event_id"]) for each in shown]
    # Of one waybill in order, of different ones in any order.
    assert sorted(found) == [(w, e) for w in ("WATCH-2", "WATCH-3") for e in "ab"]
    assert {each["milestone"] for each in shown} == {"PICKED_UP", "DELIVERED"}
    flagged = trackd(*asked, "--flag", "delayed")
    (line,) = flagged.out.splitlines()
    assert orjson.loads(line)["flags_raised"] == ["DELAYED"]
    snapshot = trackd(*asked, "--from", "snapshot")
    (line,) = snapshot.out.splitlines()
    assert "previous_milestone" not in orjson.loads(line)


def test_words_that_are_none_are_usage(trackd: Trackd) -> None:
    """With what there is to choose from."""
    for words in (("--milestone", "gone"), ("--flag", "gone"), ("--from", "gone")):
        ran = trackd("watch", *words)
        assert ran.code == 2
        assert "gone" in ran.err
    assert "out_for_delivery" in trackd("watch", "--milestone", "gone").err.replace("\n", "")


def test_a_token_file_goes_on_where_it_was(trackd: Trackd, tmp_path: Path) -> None:
    """Nothing twice after an orderly end, nothing left out; a token of other data is refused."""
    ingested(trackd, scan("WATCH-4", "a", "PICKED_UP"))
    asked = ("watch", "--json", "--from", "earliest", "--token-file", "place", "--waybill")
    first = trackd(*asked, "WATCH-4", "--until-caught-up")
    assert len(first.out.splitlines()) == 1
    ingested(trackd, scan("WATCH-4", "b", "DELIVERED", minutes=9))
    second = trackd(*asked, "WATCH-4", "--until-caught-up")
    (line,) = second.out.splitlines()
    assert orjson.loads(line)["event"]["event_id"] == "b"
    assert [each.name for each in tmp_path.iterdir() if "place" in each.name] == ["place"]
    (tmp_path / "place").write_text("another/0.1,1.1\n")
    refused = trackd(*asked, "WATCH-4", "--until-caught-up")
    assert refused.code == 1
    assert "POSITION_UNKNOWN" in refused.err


def test_a_token_file_that_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    """/dev/null, say, where whoever watches may write in /dev."""
    os.mkfifo(tmp_path / "place")
    _keep("token", tmp_path / "place")
    assert [each.is_fifo() for each in tmp_path.iterdir()] == [True]


def test_it_waits_for_a_lost_server_and_misses_nothing(tmp_path: Path) -> None:
    """A server that is killed and started again; Ctrl-C ends it with 130."""
    server = ServerProcess(tmp_path / "data", "--partitions", "2").start()
    watching = subprocess.Popen(
        [TRACKD, "watch", "--json", "--from", "earliest", "--token-file", "place"],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(server.grpc),
    )
    assert watching.stdout
    try:
        for number in range(2):
            story = jsonl(scan("WATCH-5", f"{number}", "DAMAGED" if number else "PICKED_UP"))
            assert run("ingest", "-", server=server.grpc, cwd=tmp_path, stdin=story).code == 0
            shown = orjson.loads(watching.stdout.readline())
            assert shown["event"]["event_id"] == str(number)
            if not number:
                server.kill()
                server.start("--grpc", server.grpc)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130
    finally:
        watching.kill()
        watching.stdout.close()
        server.kill()
