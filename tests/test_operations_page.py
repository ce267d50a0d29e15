"""docs/operations.md against the code: what its tables, unit file and settings file say is so.

A test reads a table of the page and the same facts where the code has them, and wants them equal:
neither a setting, metric, log line, error, bound nor exit code can come or go unnoticed.
"""

import configparser
import re
import shlex
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.cli.conftest import ROOT, run_here
from tests.conftest import Serve
from trackd import chores, exits, server
from trackd.cli.terminal import USAGE
from trackd.client import SyncAdmin
from trackd.configuration import load
from trackd.domain import validation
from trackd.finding import Kind
from trackd.setting_kinds import human_size
from trackd.settings import Settings, panel_of
from trackd.store import data_directory
from trackd.v1.feed_pb2 import CreateSubscriptionRequest, Subscription
from trackd.v1.feed_pb2_grpc import FeedServiceStub
from trackd.wire import door, errors, tracking

PAGE = (ROOT / "docs" / "operations.md").read_text()
SOURCE = ROOT / "src" / "trackd"


def section(heading: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^##+ `?{heading}`?\n", PAGE, re.MULTILINE)
    assert found, f"there is no heading {heading}"
    return re.split(r"^##+ ", PAGE[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of every table in text, without headings and back-quotes."""
    lines = text.splitlines()
    heads = {n - 1 for n, line in enumerate(lines) if line.startswith("| ---")}
    return [
        [cell.strip().strip("`") for cell in line[1:-1].split("|")]
        for n, line in enumerate(lines)
        if line.startswith("| ") and n not in heads and not line.startswith("| ---")
    ]


def block(language: str) -> str:
    """The page's only fence of a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def settings_tables() -> str:
    """The settings as the page has to show them."""
    lines: list[str] = []
    panel = ""
    for name, field in Settings.model_fields.items():
        if panel_of(field) != panel:
            panel = panel_of(field)
            head = "| setting | default | what it is, and what a caller sees beyond it |"
            lines += ["", f"**{panel}**", "", head, "| --- | --- | --- |"]
        default = field.default
        if isinstance(default, bool):
            default = str(default).lower()
        elif "_bytes" in name and default is not None:
            default = human_size(default)
        shown = "–" if default is None else f"`{default}`"
        lines.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(lines)


def test_every_setting_is_there_with_its_default() -> None:
    """The tables are made from the model: when this fails, take over what was expected."""
    between = PAGE.split("<!-- settings: begin -->")[1].split("<!-- settings: end -->")[0]
    assert between.strip() == settings_tables().strip()


def test_the_settings_file_is_one(tmp_path: Path) -> None:
    """The TOML example is taken, and means what it says."""
    file = tmp_path / "trackd.toml"
    file.write_text(block("toml"))
    settings = load({"config": str(file)})
    assert (settings.partitions, settings.write_back_events_max) == (4, 2_000_000)


def test_the_unit_starts_a_server() -> None:
    """Its command line is valid, its stop is patient enough, and it knows which exits are final."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents it
    unit.read_string(block("ini"))
    service = unit["Service"]
    program, command, *flags = shlex.split(service["ExecStart"])
    assert (Path(program).name, command) == ("trackd", "serve")
    assert run_here("config", "--check", *flags).code == 0
    patience_s = load().shutdown_grace_s + server._CLOSE_TIMEOUT_S
    assert int(service["TimeoutStopSec"]) > patience_s
    assert f"--stop-timeout {service['TimeoutStopSec']}" in PAGE
    final = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert final == {USAGE, exits.DATA_BEHIND}


def test_every_exit_code_is_there() -> None:
    """All that the server can end with by itself, and no other."""
    codes = {value for value in vars(exits).values() if isinstance(value, int)} | {USAGE}
    assert {int(row[0]) for row in rows(section("Exit codes"))} == codes


def _families(exposed: str) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Name, type and labels of our own metrics in a scrape."""
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", exposed, re.MULTILINE):
        if not name.startswith(("trackd_", "grpc_")) or name.endswith("_created"):
            continue
        labels = re.search(rf"^{name}(?:_count)?(?:{{(.*)}})? ", exposed, re.MULTILINE)
        assert labels, f"{name} has no sample"
        yield name, kind, frozenset(re.findall(r'(\w+)="', labels[1] or ""))


def test_every_metric_is_there(serve: Serve) -> None:
    """Name, type and labels as a server exposes them."""
    running = serve("--partitions", "1", "--unsafe-plaintext")
    with SyncAdmin(running.grpc) as admin:
        admin.get_stats()
    with grpc.insecure_channel(running.grpc) as channel:
        asked = CreateSubscriptionRequest(subscription=Subscription(name="page"))
        FeedServiceStub(channel).CreateSubscription(asked)
    with urllib.request.urlopen(f"http://{running.metrics}/metrics", timeout=10) as answer:
        exposed = answer.read().decode()
    table = {
        (name, kind, frozenset(labels.replace(",", " ").split()))
        for name, kind, labels, _ in rows(section("Metrics and alerts"))
    }
    assert table == set(_families(exposed))


def test_every_log_line_of_the_server_is_there() -> None:
    """With its level."""
    logged = set()
    for file in SOURCE.rglob("*.py"):
        text = file.read_text()
        if "structlog.get_logger()" not in text:
            continue
        calls = re.findall(r"\b_?log\.(\w+)\(\s*\"([^\"]+)\"(?: if \w+ else \"([^\"]+)\")?", text)
        logged |= {(event, level) for level, *events in calls for event in events if event}
    assert ("opened", "info") in logged
    assert {(row[0], row[1]) for row in rows(section("Logs"))} == logged


def test_every_reason_of_an_error_is_there() -> None:
    """Every name in capitals that the door's files hold, with the status code it comes with."""
    table = {row[0]: row[1] for row in rows(section("Errors"))}
    sources = "".join(file.read_text() for file in (SOURCE / "wire").glob("*.py"))
    assert set(table) == set(re.findall(r'"([A-Z]+(?:_[A-Z]+)*)"', sources))
    for reason, code in re.findall(r'StatusCode\.(\w+),\s+"(\w+)"', sources):
        assert table[code] == reason
    assert set(table.values()) <= {code.name for code in grpc.StatusCode}
    assert "RetryInfo (0.1 s)" in PAGE
    assert errors.overloaded("reads", 1).retry_after_s == 0.1
    assert "RetryInfo (5 s)" in PAGE
    assert errors.low_space().retry_after_s == 5


def test_every_option_of_the_grpc_server_is_there() -> None:
    """With its value, or the setting that gives it."""
    bounds = door.DoorLimits(
        message_bytes_max=-1,
        response_bytes_max=-2,
        unary_ingest_in_flight_max=100,
        reads_in_flight_max=200,
        streams_max=300,
        watches_max=400,
        consumers_max=500,
        connections_max=600,
    )
    names = {
        "message_bytes_max": -1,
        "response_bytes_max": -2,
        "half of the open files": bounds.connections_max,
        "every limit on calls together": bounds.pending_calls_max,
        "twice that": 2 * bounds.pending_calls_max,
    }
    table = [(row[0], row[1]) for row in rows(section("Connections"))]
    shown = [(name, names[value] if value in names else int(value)) for name, value in table]
    assert shown == door._options(bounds)


@pytest.mark.parametrize(
    ("what", "bounds"),
    [
        ("events in a batch", [validation.BATCH_EVENTS_MAX]),
        ("batch_id", [validation.BATCH_ID_LENGTH_MAX]),
        ("waybill numbers in a BatchGetStatus", [tracking.BATCH_WAYBILLS_MAX]),
        ("page of a timeline", [tracking.PAGE_SIZE_MAX, tracking.PAGE_SIZE_DEFAULT]),
        (
            "waybill number",
            [validation.WAYBILL_NUMBER_LENGTH_MIN, validation.WAYBILL_NUMBER_LENGTH_MAX],
        ),
        ("event_id", [validation.EVENT_ID_LENGTH_MAX]),
        ("facility, device, operator, source fields", [validation.SHORT_TEXT_LENGTH_MAX]),
        ("container_number", [validation.CONTAINER_NUMBER_LENGTH_MAX]),
        ("remark", [validation.REMARK_LENGTH_MAX]),
        (
            "attributes",
            [
                validation.ATTRIBUTES_MAX,
                validation.ATTRIBUTE_KEY_LENGTH_MAX,
                validation.ATTRIBUTE_VALUE_LENGTH_MAX,
            ],
        ),
        ("receipt's texts", [validation.RECEIPT_TEXT_LENGTH_MAX]),
        ("AdminService calls at work at once", [door._ADMIN_CALLS_MAX]),
    ],
)
def test_the_bounds_of_the_contract_are_what_the_page_says(what: str, bounds: list[int]) -> None:
    """Numbers of the limits table are the constants that refuse."""
    (value,) = [row[1] for row in rows(section("Limits")) if row[0] == what]
    shown = [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", value)]
    assert shown[-len(bounds) :] == bounds or shown[: len(bounds)] == bounds


def test_the_disk_is_looked_at_as_often_as_the_page_says() -> None:
    """A full disk: what can be filled between two looks depends on it."""
    assert f"It looks {1 / chores.SPACE_CHECK_INTERVAL_S:.0f} times a second." in PAGE


def test_every_kind_of_finding_is_there() -> None:
    """As `trackd check` names them."""
    assert [row[0] for row in rows(section("trackd check"))] == [kind.value for kind in Kind]


def test_the_format_is_the_one_that_is_named() -> None:
    """Upgrades: a new format needs a new sentence."""
    assert f"has format {data_directory.FORMAT_VERSION}," in section("Upgrades")
