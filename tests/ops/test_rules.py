"""docs/ops: rules that Prometheus takes, and alerts that fire when they should and not before."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "docs" / "ops" / "prometheus"


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus's own checker: on PATH, or where `make test` puts it."""
    own = Path(sys.executable).with_name("promtool")
    found = shutil.which("promtool") or (str(own) if own.exists() else None)
    assert found, "there is no promtool: run `make test-tools`, or install Debian's prometheus"
    return found


def run(*words: str, cwd: Path) -> None:
    """Runs promtool, which has to be content."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_sentence_on_what_to_do() -> None:
    """In the order of the rules, so that whoever is called finds it by its name."""
    document = yaml.safe_load((RULES / "alerting.rules.yml").read_text())
    alerts = [rule["alert"] for group in document["groups"] for rule in group["rules"]]
    page = (RULES.parent / "README.md").read_text()
    assert re.findall(r"^\| `(Trackd\w+)` \| \S", page, re.MULTILINE) == alerts


def test_prometheus_takes_the_rules(promtool: str) -> None:
    """Syntax, expressions and templates of all rules, and of the scrape example."""
    files = sorted(file.name for file in RULES.glob("*.rules.yml"))
    assert files == ["alerting.rules.yml", "recording.rules.yml"]
    run(promtool, "check", "rules", *files, cwd=RULES)
    run(promtool, "check", "config", "--syntax-only", "scrape.yml", cwd=RULES)


def test_alerts_fire_when_they_should_and_not_before(promtool: str, tmp_path: Path) -> None:
    """Series of an evening each, fed to the rules: what is told and in which words."""
    for file in (*RULES.glob("*.rules.yml"), Path(__file__).with_name("alerts_test.yml")):
        shutil.copy(file, tmp_path)
    run(promtool, "test", "rules", "alerts_test.yml", cwd=tmp_path)
