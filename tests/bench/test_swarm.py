"""The load test: its schedule, its figures and its objectives are right; a run tells the truth."""

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.swarm.objectives import ObjectivesInvalid, judge, read
from bench.swarm.outcome import figures, knee, steps
from bench.swarm.recordings import Recordings
from bench.swarm.scans import ScanSource, known_scans, known_waybills
from bench.swarm.schedule import Schedule
from bench.swarm.shapes import SHAPES
from bench.swarm.stream import Batch, ScannerStream
from trackd.v1.ingest_pb2 import StreamEventsRequest, StreamEventsResponse

NOW_MS = 1_800_000_000_000
ROOT = Path(__file__).parent.parent.parent


def test_a_schedule_leaves_no_turn_out() -> None:
    """Turns are at their places whenever they are taken: a late user has all of them to take."""
    schedule = Schedule(began_at=100.0, per_s=4, phase=0.5)
    assert [schedule.take() for _ in range(5)] == [100.125, 100.375, 100.625, 100.875, 101.125]
    with pytest.raises(ValueError, match="needs turns"):
        Schedule(began_at=0, per_s=0, phase=0)


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.floats(0, 5), st.floats(0, 5), st.integers(0, 500)),
        max_size=30,
    ),
    st.integers(1, 4),
)
def test_recordings_of_processes_add_up(
    answers: list[tuple[float, float, float, int]], processes: int
) -> None:
    """Recorded by several and added, or by one: the same figures."""
    whole, parts = Recordings(), [Recordings() for _ in range(processes)]
    for number, (due_at, late, served, events) in enumerate(answers):
        for recordings in (whole, parts[number % processes]):
            recordings.offer(due_at, events)
            times = {"due_at": due_at, "sent_at": due_at + late}
            recordings.answered("a", **times, answered_at=due_at + late + served, events=events)
            if events % 7 == 0:
                recordings.failed("a", "UNAVAILABLE")
    added = Recordings()
    for part in parts:
        added.add(part.taken())
        assert not part.names
        assert not part.offered
    assert str(figures(added)) == str(figures(whole))
    assert steps(added) == steps(whole) or not answers


def test_response_runs_from_when_it_was_due() -> None:
    """A second late and 10 ms served: 1,010 ms of response, 10 of service, 1,000 of lateness."""
    recordings = Recordings(began_at=50.0)
    recordings.offer(51.0, 10)
    recordings.answered("a", due_at=51.0, sent_at=52.0, answered_at=52.01, events=10)
    found = figures(recordings)
    assert found["a.response_ms.p99"] == pytest.approx(1010, rel=0.001)
    assert found["a.service_ms.max"] == pytest.approx(10, rel=0.001)
    assert found["a.lateness_ms.p50"] == pytest.approx(1000, rel=0.001)
    assert found["all.answered_share"] == 1
    assert list(recordings.offered) == [1]
    assert list(recordings.events) == [2]


def test_the_knee_is_the_last_step_that_keeps_up() -> None:
    """A server that answers 250 scans a second: 100 and 200 due are kept, 300 and more are not."""
    recordings = Recordings()
    for second in range(5):
        due = 100 * (second + 1)
        recordings.offer(second + 0.5, due)
        times = {"due_at": second + 0.5, "sent_at": second + 0.5, "answered_at": second + 0.6}
        recordings.answered("a", **times, events=min(due, 250))
    rows = steps(recordings, parts=5)
    top = knee(rows)
    assert top is not None
    assert (top.offered_per_s, top.answered_per_s) == (200, 200)
    assert knee(rows[2:]) is None


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_reaches_the_users_asked_for_and_no_more(name: str) -> None:
    """From 1 to all of them over a run, and all of them at one time at least."""
    shape = SHAPES[name]
    users = [shape.users(step / 100, 40) for step in range(101)]
    assert min(users) >= 1
    assert max(users) == 40


def test_only_the_reconnect_cuts_the_network_and_gives_it_back() -> None:
    """It has an end well before the run's, so that there is time to catch up."""
    cut = [step / 100 for step in range(101) if SHAPES["reconnect"].is_cut(step / 100)]
    assert cut
    assert 0 < cut[0] < cut[-1] < 0.8
    assert [name for name, shape in SHAPES.items() if shape.cut] == ["reconnect"]


def test_processes_send_different_parcels_and_know_the_same() -> None:
    """No waybill is sent by two processes of a run; what front ends ask for is known to all."""
    first, second = (
        {event.waybill_number for event in source.take(300)}
        for source in (ScanSource(seed=7, process=process, now_ms=NOW_MS) for process in (0, 1))
    )
    assert first
    assert not first & second
    asked = known_waybills(seed=7, now_ms=NOW_MS, parcels=20)
    scans = list(known_scans(seed=7, now_ms=NOW_MS, parcels=20))
    assert set(asked) == {scan.waybill_number for scan in scans}
    assert max(scan.occurred_at_ms for scan in scans) <= NOW_MS


class Cable:
    """A connection that answers as many batches as it is told to, then breaks or hangs."""

    def __init__(self, *, answers: int, breaks: bool) -> None:
        self.heard: list[str] = []
        self._answers = answers
        self._breaks = breaks

    def stream(self, method: str, requests: Iterator[bytes]) -> Iterator[bytes]:
        """See Link."""
        assert method.endswith("StreamEvents")
        for data in requests:
            request = StreamEventsRequest.FromString(data)
            self.heard.append(request.batch_id)
            if len(self.heard) <= self._answers:
                yield StreamEventsResponse(batch_id=request.batch_id).SerializeToString()
            elif self._breaks:
                raise OSError("the cable is cut")

    def close(self) -> None:
        """See Link."""


def batch(number: int) -> Batch:
    """A batch without scans."""
    return Batch(StreamEventsRequest(batch_id=str(number)).SerializeToString(), 1, float(number))


def test_what_was_unanswered_goes_first_on_the_next_connection() -> None:
    """Broken after two answers: batches 3, 4 and, kept meanwhile, 5 are sent again, in order."""
    answered: list[float] = []
    broken: list[Exception] = []
    stream = ScannerStream(
        window=10,
        clock=lambda: 1.0,
        on_answer=lambda one, _: answered.append(one.due_at),
        on_break=broken.append,
    )
    first, second = Cable(answers=2, breaks=True), Cable(answers=10, breaks=False)
    stream.connect(first)
    for number in (1, 2, 3, 4):
        stream.put(batch(number))
    gevent.sleep(0.01)
    assert (answered, stream.unanswered, stream.connected) == ([1, 2], 2, False)
    assert [str(error) for error in broken] == ["the cable is cut"]
    stream.keep(batch(5))
    stream.connect(second)
    stream.put(batch(6))
    stream.finish()
    assert second.heard == ["3", "4", "5", "6"]
    assert answered == [1, 2, 3, 4, 5, 6]


def test_a_window_holds_a_batch_back() -> None:
    """With one batch at a time the second waits for the first one's answer, or the cable's end."""
    stream = ScannerStream(
        window=1, clock=lambda: 1.0, on_answer=lambda *_: None, on_break=lambda _: None
    )
    silent = Cable(answers=0, breaks=False)
    stream.connect(silent)
    stream.put(batch(1))
    waiting = gevent.spawn(stream.put, batch(2))
    gevent.sleep(0.01)
    assert not waiting.dead
    assert silent.heard == ["1"]
    stream.disconnect()
    waiting.join(timeout=5)
    assert waiting.dead
    assert stream.unanswered == 2


OBJECTIVE = '[[objective]]\nname = "n"\nmetric = "all.events"\nlimit = ">= 10"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (OBJECTIVE.replace(">= 10", "10"), "limit"),
        (OBJECTIVE.replace(">= 10", "<= many"), "limit"),
        (OBJECTIVE.replace('name = "n"\n', ""), "name"),
        (OBJECTIVE + 'limits = "x"\n', "limits is none of"),
        (OBJECTIVE + "shapes = 3\n", "shapes"),
        ("[[objective", "objectives.toml"),
    ],
)
def test_a_file_that_is_no_objectives_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    """The message names the file and what is wrong with it."""
    file = tmp_path / "objectives.toml"
    file.write_text(text)
    with pytest.raises(ObjectivesInvalid, match=fault):
        read(file)


def test_objectives_are_kept_or_missed(tmp_path: Path) -> None:
    """Within the limit is kept, beyond it missed, and so is what was not measured."""
    file = tmp_path / "objectives.toml"
    file.write_text(OBJECTIVE + 'shapes = ["hot"]\n')
    objectives = read(file)
    for measured, kept in ((10, True), (9.9, False), (math.nan, False)):
        (verdict,) = judge(objectives, {"all.events": measured}, shape="hot")
        assert verdict.kept is kept
    (nothing,) = judge(objectives, {}, shape="hot")
    assert not nothing.kept
    assert judge(objectives, {}, shape="steady") == []


def test_the_houses_objectives_can_be_read_and_name_real_shapes() -> None:
    """bench/objectives.toml is valid, and holds every shape but the ramp to something in time."""
    objectives = read(ROOT / "bench" / "objectives.toml")
    assert {shape for one in objectives for shape in one.shapes} <= set(SHAPES)
    for name in set(SHAPES) - {"ramp"}:
        assert any("_ms" in one.metric for one in objectives if name in one.shapes)


def swarm(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m bench.swarm` with these words."""
    command = [sys.executable, "-m", "bench.swarm", *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


def test_a_run_is_measured_and_judged(tmp_path: Path) -> None:
    """Two seconds against a server of its own: every scan due is answered, objectives decide."""
    file = tmp_path / "objectives.toml"
    missed = OBJECTIVE.replace("all.events", "all.answers").replace(">= 10", "<= 0")
    file.write_text(OBJECTIVE + missed)
    words = ("--shape", "hot", "--users", "8", "--duration", "2", "--processes", "2")
    directories = ("--report", str(tmp_path / "report"), "--data-dir", str(tmp_path))
    done = swarm(*words, "--objectives", str(file), *directories)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("kept") == done.stdout.count("missed") == 1
    rows = (tmp_path / "report" / "figures.csv").read_text().splitlines()
    found = dict(row.rsplit(",", 1) for row in rows)
    # Scans may be left over where the machine stood still; none is answered twice.
    assert 0 < float(found["all.answered_share"]) <= 1
    assert float(found["all.answers"]) > 0
    assert float(found["all.events"]) > 0
    made = {one.name for one in (tmp_path / "report").iterdir()}
    assert {"load.png", "locust.html", "locust_stats.csv", "recordings.json"} <= made


def test_a_shape_that_is_not_there_is_told_with_those_that_are() -> None:
    """Exit code 2, and every shape with what it asks."""
    done = swarm("--shape", "tsunami")
    assert done.returncode == 2
    assert all(f"  {name}" in done.stdout for name in SHAPES)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--users", "0"), "--users: '0' must be a whole number, 1 or more"),
        (("--processes", "many"), "--processes: 'many' must be a whole number, 1 or more"),
        (("--duration", "-1"), "--duration: '-1' must be a number, 1 or more"),
        (("--duration", "inf"), "--duration: 'inf' must be a number, 1 or more"),
    ],
)
def test_a_load_that_cannot_be_is_a_usage_error(words: tuple[str, str], told: str) -> None:
    """It is said which argument it is and what it may be, before a server is started."""
    command = [sys.executable, "-m", "bench.swarm", *words]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert told in ended.stderr
