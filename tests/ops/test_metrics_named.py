"""docs/ops: every metric that a rule or a panel names is on the page of a server or a notifier."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import Serve

OPS = Path(__file__).parent.parent.parent / "docs" / "ops"
RULES = OPS / "prometheus"
READY = re.compile(r"metrics on (\S+)")
WORDS = {"and", "bool", "by", "group_left", "group_right", "ignoring", "offset", "on", "or"}
WORDS |= {"unless", "without"}
# Prometheus makes it itself, for each target.
MADE_BY_PROMETHEUS = {"up"}


def metrics_of(expression: str) -> set[str]:
    """The names of metrics in an expression of PromQL."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\$\w+", " ", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"\b[A-Za-z_][\w:]*\b(?!\s*\()", bare)
    return set(names) - WORDS


def rules() -> list[dict[str, Any]]:
    """All rules of all files."""
    documents = [yaml.safe_load(file.read_text()) for file in sorted(RULES.glob("*.rules.yml"))]
    return [
        rule for document in documents for group in document["groups"] for rule in group["rules"]
    ]


def panels() -> list[str]:
    """The expressions of the dashboard."""
    dashboard = json.loads((OPS / "grafana" / "trackd.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def samples_of(address: str) -> set[str]:
    """Names of samples on a page, those of families that have none yet included."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    names = set(re.findall(r"^([a-zA-Z_:][\w:]*)[ {]", page, re.MULTILINE))
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names.update(name + suffix for suffix in suffixes)
    return names


@pytest.fixture
def notifier(serve: Serve) -> Iterator[tuple[str, str]]:
    """The pages of a server of one process and of a notifier that works for it."""
    server = serve("--partitions", "1")
    command = [str(Path(sys.executable).with_name("trackd")), "notify"]
    command += ["--server", server.grpc, "--metrics", "127.0.0.1:0", "--log-level", "error"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            told = READY.search(process.stdout.readline())
            assert told, "the notifier did not start"
            yield server.metrics, told[1]
        finally:
            process.terminate()


def test_every_metric_that_is_named_exists(notifier: tuple[str, str], serve: Serve) -> None:
    """On the page of a server, of one with workers, or of a notifier; or a rule records it."""
    cluster = serve("--partitions", "2", "--workers", "2")
    there = samples_of(notifier[0]) | samples_of(notifier[1]) | samples_of(cluster.metrics)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    expressions = [rule["expr"] for rule in rules()] + panels()
    named = set().union(*map(metrics_of, expressions))
    assert len(named) > 40
    assert named - there - recorded - MADE_BY_PROMETHEUS == set()
    assert recorded <= named, "what is recorded is also looked at"


def test_names_are_found_in_expressions() -> None:
    """Functions, labels, matchers and words of the language are none."""
    text = (
        'sum by (le, a) (rate(b_bucket{c="d_total",e=~"$f"}[5m])) / on (g) h:i:rate1m > 0.5 and j'
    )
    assert metrics_of(text) == {"b_bucket", "h:i:rate1m", "j"}
    assert metrics_of("predict_linear(k[6h], 86400) < 2e9") == {"k"}


def test_what_must_be_told_is_told() -> None:
    """Each thing that an operator has to hear of has its alert, with a severity and a sentence."""
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    wanted = {
        "TrackdIngestLag",
        "TrackdSlowCommits",
        "TrackdStalls",
        "TrackdParkedChanges",
        "TrackdLagAlarm",
        "TrackdWritesRefused",
        "TrackdStorageFailure",
        "TrackdMemory",
        "TrackdWorkerRestarts",
    }
    assert wanted <= set(alerts)
    for alert in alerts.values():
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"].endswith((".", "?"))
