"""`trackd track` shows people and programs what became of a parcel."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.conftest import Trackd, run, run_here
from tests.cli.lines import AT_MS, jsonl, scan
from tests.harness.server import ServerProcess
from trackd.cli.words import relative_time
from trackd.client.errors import ServerUnavailable
from trackd.client.front_end import FrontEnd
from trackd.domain.catalogue import Language
from trackd.v1.tracking_pb2 import GetTimelineResponse


@pytest.fixture(scope="module")
def stored(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A parcel with a story, and one with many scans."""
    story = [
        scan("TRACK-1", "a", "PICKED_UP", facility_code="SHA-01", next_facility_code="PEK-HUB"),
        scan("TRACK-1", "b", "ARRIVED_AT_FACILITY", minutes=600, container_number="B-77"),
        scan("TRACK-1", "c", "DAMAGED", minutes=601, reason="PACKAGING", remark="外箱破损"),
        scan("TRACK-1", "d", "DELIVERED", minutes=1_500, receipt={"received_by": "LOCKER"}),
    ]
    many = [scan("TRACK-2", n, "IN_TRANSIT", minutes=n) for n in range(1_200)]
    cwd = tmp_path_factory.mktemp("track")
    ran = run("ingest", "-", "--strict", server=server.grpc, cwd=cwd, stdin=jsonl(*story, *many))
    assert ran.code == 0


@pytest.fixture
def tracked(trackd: Trackd, stored: None) -> Trackd:
    """The command, once the parcels are there."""
    return trackd


def test_a_story_reads_from_the_newest_scan_down(tracked: Trackd) -> None:
    """Headline with milestone and flags, then each scan with time, place, reason and remark."""
    ran = tracked("track", "track-1", "--lang", "en", env={"TZ": "Asia/Shanghai"})
    head, summary, _, *scans = ran.out.splitlines()
    assert ran.code == 0
    assert head == "TRACK-1  Delivered  ⚑ Damaged"
    assert "4 scans since 2025-11-22" in summary
    assert "CST (UTC+08:00)" in summary
    assert scans[0].split()[:3] == ["●", "2025-11-23", "17:26:40"]
    for line, words in zip(
        scans,
        (
            ("Delivered", "Parcel locker"),
            ("02:27:40", "Parcel found damaged", "Inadequate packaging", "“外箱破损”"),
            ("02:26:40", "Arrived at facility", "in B-77"),
            ("2025-11-22", "16:26:40", "Picked up", "SHA-01 → PEK-HUB"),
        ),
        strict=True,
    ):
        assert all(word in line for word in words), line
        assert "ago" in line


@pytest.mark.parametrize(("lang", "said"), [("en", "Parcel locker"), ("zh", "快递柜")])
@pytest.mark.parametrize("columns", [20, 30, 45, 59])
def test_a_narrow_terminal_shows_all_of_it(
    tracked: Trackd, *, columns: int, lang: str, said: str
) -> None:
    """When each scan was, and below it what."""
    ran = tracked("track", "TRACK-1", "--lang", lang, env={"COLUMNS": str(columns)})
    text = " ".join(ran.out.split())
    for words in (said, "SHA-01 → PEK-HUB", "外箱破损", "09:26:40"):
        assert words in text, ran.out
    assert "…" not in ran.out


def test_the_same_in_chinese(tracked: Trackd) -> None:
    """By flag, or where the machine's language is Chinese."""
    asked = tracked("track", "TRACK-1", "--lang", "zh")
    assert "已签收  ⚑ 包裹破损" in asked.out
    assert "快递柜" in asked.out
    assert tracked("track", "TRACK-1", env={"LANG": "zh_CN.UTF-8"}).out == asked.out


def test_programs_get_documents(tracked: Trackd) -> None:
    """A line for each waybill in the order given, an unknown one included; exit code 1 for that."""
    ran = tracked("track", "TRACK-1", "TRACK-0", "TRACK-2", "--json", "--all")
    first, missing, many = map(orjson.loads, ran.out.splitlines())
    assert ran.code == 1
    assert "no scan of TRACK-0 is known" in ran.err
    assert (first["status"]["milestone"], first["status"]["flags"]) == ("DELIVERED", ["DAMAGED"])
    assert [event["event_id"] for event in first["events"]] == ["d", "c", "b", "a"]
    assert first["events"][3]["occurred_at_ms"] == AT_MS
    assert missing == {"waybill_number": "TRACK-0", "status": None, "events": []}
    assert [event["event_id"] for event in many["events"]] == [str(n) for n in range(1_199, -1, -1)]


def test_a_terminal_of_another_encoding_gets_what_it_can_show(tracked: Trackd) -> None:
    """A flag or a remark that cannot be shown costs no timeline."""
    ran = tracked("track", "TRACK-1", env={"PYTHONIOENCODING": "ascii"})
    assert ran.code == 0
    assert "TRACK-1  Delivered  ? Damaged" in ran.out


def test_a_long_story_is_cut_short_and_says_so(tracked: Trackd) -> None:
    """The latest scans, and how many more there are."""
    lines = tracked("track", "TRACK-2", "--lang", "en").out.splitlines()
    assert lines[-1].strip() == "… 1,185 older; --all shows them"
    assert len(lines) == 3 + 15 + 1


def test_what_documents_say_can_be_sent_again(tracked: Trackd, tmp_path: Path) -> None:
    """`track --json` and `ingest` agree on what an event is: all are duplicates."""
    document = tracked("track", "TRACK-1", "--json").document
    ran = tracked("ingest", "-", "--json", stdin=jsonl(*document["events"]))
    assert (ran.document["duplicates"], ran.document["rejected"]) == (4, 0)


def test_an_unknown_parcel_is_one_clear_line(trackd: Trackd) -> None:
    """Known to nobody, or no waybill number at all: exit code 1, and nothing on standard output."""
    for waybill in ("TRACK-0", "no number!"):
        ran = trackd("track", waybill)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == f"trackd: no scan of {waybill} is known; check the number\n"


def test_an_unknown_language_is_a_usage_error(trackd: Trackd) -> None:
    """Exit code 2, with what there is."""
    ran = trackd("track", "TRACK-1", "--lang", "fr")
    assert ran.code == 2
    assert "'fr' is not zh or en" in ran.err


@pytest.mark.parametrize(
    ("seconds", "en", "zh"),
    [
        (0, "just now", "刚刚"),
        (59, "just now", "刚刚"),
        (60, "1 min ago", "1分钟前"),
        (3_599, "59 min ago", "59分钟前"),
        (3_600, "1 h ago", "1小时前"),
        (86_400, "1 day ago", "1天前"),
        (172_800, "2 days ago", "2天前"),
        (-120, "in 2 min", "2分钟后"),
        (-172_800, "in 2 days", "2天后"),
    ],
)
def test_a_moment_is_told_to_its_largest_whole_unit(seconds: int, en: str, zh: str) -> None:
    """In both languages, for the past and for clocks that are ahead."""
    for language, told in ((Language.EN, en), (Language.ZH, zh)):
        at_ms = AT_MS - seconds * 1000
        assert relative_time(at_ms, now_ms=AT_MS, language=language) == told


def test_a_number_that_is_no_text_is_a_slip(trackd: Trackd) -> None:
    """As a terminal of another encoding gives it: exit code 2, and no traceback."""
    ran = trackd("track", "\udcff\udcfe12")
    assert (ran.code, ran.err) == (2, "trackd: what was asked for is not UTF-8\n")


@pytest.mark.usefixtures("stored")
def test_a_waybill_that_nobody_can_be_asked_for_does_not_keep_back_the_others(
    server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are shown; it has a line that says why, and the command fails."""
    ask = FrontEnd.timeline_page

    async def away(self: FrontEnd, waybill: str, **options: Any) -> GetTimelineResponse:
        if waybill == "AWAY-1":
            raise ServerUnavailable("partition 1 is starting", reason="PARTITION_STARTING")
        return await ask(self, waybill, **options)

    monkeypatch.setattr(FrontEnd, "timeline_page", away)
    words = ("track", "AWAY-1", "TRACK-1", "NOBODY-1", "--server", server.grpc)
    shown = run_here(*words, "--lang", "en")
    assert shown.code == 1
    assert "TRACK-1  Delivered" in shown.out
    assert "AWAY-1: " in shown.err
    assert "partition 1 is starting" in shown.err
    assert "no scan of NOBODY-1 is known" in shown.err
    told = [orjson.loads(line) for line in run_here(*words, "--json").out.splitlines()]
    assert [each["waybill_number"] for each in told] == ["AWAY-1", "TRACK-1", "NOBODY-1"]
    assert [each.get("error") for each in told] == ["PARTITION_STARTING", None, None]
