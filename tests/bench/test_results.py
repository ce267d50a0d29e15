"""What becomes of a run's figures: compared with the last committed ones, and drawn."""

import math
import os
import subprocess
import time
from io import StringIO
from pathlib import Path

import orjson
from rich.console import Console

from bench.comparison import last_committed
from bench.figures import Figure, Outcome
from bench.picture import draw
from bench.process import usage_of
from bench.report import print_table, write_json
from tests.conftest import Serve

FACTS = {"CPU": "2 cores", "Python": "3.11"}


def result(file: Path, rate: float) -> None:
    """A result with one figure."""
    figure = {"name": "rate", "value": rate, "unit": "events/s"}
    document = {
        "machine": {"CPU": "2 cores", "load before": "9.99"},
        "versions": {"Python": "3.10"},
        "scenarios": {"ingest": {"figures": [figure]}, "half": {"figures": []}},
    }
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(orjson.dumps(document))


def git(directory: Path, *words: str) -> None:
    """Runs git."""
    names = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *names, *words], cwd=directory, check=True, capture_output=True)


def test_the_reference_is_the_newest_result_that_is_committed(tmp_path: Path) -> None:
    """Not a newer one that is not: figures are compared with what others can see."""
    results = tmp_path / "results"
    for name, rate in (("2026-01-01", 50.0), ("2026-02-01", 100.0)):
        result(results / f"{name}.json", rate)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "results")
    git(tmp_path, "commit", "-q", "-m", "results")
    result(results / "2026-03-01.json", 500.0)
    reference = last_committed(results, facts=FACTS)
    assert reference.name == "2026-02-01.json"
    assert reference.ratio("ingest", "rate", 150.0) == 1.5
    assert math.isnan(reference.ratio("ingest", "another", 1.0))
    assert reference.differs == ("Python 3.10 → 3.11",)
    outcome = Outcome([Figure("rate", 150.0, "events/s")])
    console = Console(width=120, record=True, file=StringIO())
    print_table(console, {"ingest": outcome}, {}, reference=reference, caption="")
    assert "1.50" in console.export_text()


def test_without_a_committed_result_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    """No directory, no repository, or nothing in it: an empty reference, no failure."""
    assert last_committed(tmp_path / "none", facts=FACTS).name == ""
    git(tmp_path, "init", "-q")
    result(tmp_path / "results" / "2026-03-01.json", 500.0)
    reference = last_committed(tmp_path / "results", facts=FACTS)
    assert (reference.name, reference.values) == ("", {})
    assert math.isnan(reference.ratio("ingest", "rate", 1.0))


def test_what_a_run_wrote_can_be_compared_with(tmp_path: Path) -> None:
    """A figure that could not be measured is left out of it."""
    from datetime import UTC, datetime

    from bench.comparison import read

    outcome = Outcome([Figure("rate", 80.0, "events/s"), Figure("p99", math.nan, "ms")])
    run = {"machine": FACTS, "versions": {}}
    file = tmp_path / "run.json"
    write_json(file, began_at=datetime.now(UTC), run=run, outcomes={"ingest": outcome}, failures={})
    reference = read(file, facts=FACTS)
    assert dict(reference.values) == {("ingest", "rate"): 80.0}
    assert reference.differs == ()


def test_a_picture_is_drawn_of_what_there_is(tmp_path: Path) -> None:
    """Series become panels; a run without any has no picture."""
    file = tmp_path / "run.png"
    assert not draw(file, {"disk": Outcome([])}, title="t")
    assert not file.exists()
    series = {"events_per_s": [(5.0, 1e5), (10.0, 9e4)], "ack_p99_ms": []}
    curve = {"ack_p99_ms_by_rate": [(1e4, 5.0), (2e4, 9.0)]}
    outcomes = {"ingest": Outcome([], series), "curve": Outcome([], curve)}
    assert draw(file, outcomes, title="t")
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_usage_of_a_server_counts_the_processes_it_started(serve: Serve) -> None:
    """With two workers the memory of all three processes is told, not the first one's alone."""
    server = serve("--partitions", "2", "--workers", "2")
    alone = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    alone_bytes = alone * os.sysconf("SC_PAGE_SIZE")
    deadline = time.monotonic() + 30
    while usage_of(server.pid).rss_bytes < 2 * alone_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.05)
