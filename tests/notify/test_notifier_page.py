"""What docs/operations.md says of the notifier, against the code."""

import re

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from tests.cli.conftest import run_here
from tests.test_operations_page import PAGE, rows, section
from trackd.notify.figures import Figures
from trackd.notify.settings import NotifySettings, load
from trackd.setting_file import SettingsError
from trackd.setting_kinds import human_size
from trackd.wire.endpoint_rules import RETRY_BACKOFF_MS


def settings_table() -> str:
    """The settings as the page has to show them."""
    lines = ["| setting | default | what it is, and what is beyond it |", "| --- | --- | --- |"]
    for name, field in NotifySettings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr) or default in {None, ""}:
            shown = "–"
        elif isinstance(default, bool):
            shown = f"`{str(default).lower()}`"
        else:
            shown = f"`{human_size(default) if '_bytes' in name else default}`"
        lines.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(lines)


def test_every_setting_of_the_notifier_is_there() -> None:
    """The table is made from the model: when this fails, take over what was expected."""
    between = PAGE.split("<!-- notifier settings: begin -->")[1]
    assert between.split("<!-- notifier settings: end -->")[0].strip() == settings_table()


def test_every_metric_of_the_notifier_is_there() -> None:
    """Name, type and labels as a notifier exposes them."""
    registry = CollectorRegistry()
    Figures(registry)
    exposed = {
        (family.name, family.type, frozenset(key for key in sample.labels if key != "le"))
        for family in registry.collect()
        for sample in family.samples[:1]
        if family.name.startswith("trackd_notify_")
    }
    table = {
        (name.removesuffix("_total"), kind, frozenset(labels.replace(",", " ").split()))
        for name, kind, labels, _ in rows(section("Metrics of the notifier"))
    }
    assert table == exposed


def test_the_schedule_is_the_one_that_is_kept() -> None:
    """Every wait by its number."""
    units = {"s": 1_000, "min": 60_000, "h": 3_600_000}
    (told,) = re.findall(r"tried again after ([^;]+), each", PAGE)
    waits = re.findall(r"(\d+) (s|min|h)", told.replace("\n", " "))
    assert tuple(int(number) * units[unit] for number, unit in waits) == RETRY_BACKOFF_MS


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--connect-timeout-s", "0"), "connect_timeout_s = 0 (flag --connect-timeout-s): must be"),
        (("--breaker-pause-s", "nan"), "must be a number, more than 0 and at most 3600"),
        (("--endpoint-attempts-max", "x"), "(flag --endpoint-attempts-max): must be a number, 1"),
        (("--server", "nowhere"), "server = nowhere (flag --server): must be HOST:PORT"),
        (("--loop", "trio"), "loop = trio (flag --loop): must be 'uvloop' or 'asyncio'"),
        (("--message-urgent", "all"), "message_urgent = all (flag --message-urgent): must be of"),
    ],
)
def test_a_setting_that_cannot_be_used_is_a_usage_error(flags: tuple[str, ...], told: str) -> None:
    """Exit code 2, and a sentence that names it."""
    ran = run_here("notify", *flags)
    assert ran.code == 2
    assert told in ran.err


def test_metrics_beyond_this_machine_have_to_be_meant() -> None:
    """As for the server; and the sentence about several settings tells none of the secrets."""
    ran = run_here(
        *("notify", "--metrics", "0.0.0.0:0"), env={"TRACKD_NOTIFY_TENCENT_SECRET_KEY": "whispered"}
    )
    assert ran.code == 2
    assert "metrics = 0.0.0.0:0 can be reached from other machines" in ran.err
    assert "TRACKD_NOTIFY_UNSAFE_PLAINTEXT=true" in ran.err
    assert "whispered" not in ran.err
    assert NotifySettings(metrics="0.0.0.0:0", unsafe_plaintext=True).metrics == "0.0.0.0:0"


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("TRACKD_SERVER", "server = x (environment TRACKD_SERVER): must be HOST:PORT"),
        (
            "TRACKD_NOTIFY_UNSAFE_ALLOW_LOCAL_WEBHOOKS",
            "(environment TRACKD_NOTIFY_UNSAFE_ALLOW_LOCAL_WEBHOOKS): must be true or false",
        ),
    ],
)
def test_a_fault_in_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, told: str
) -> None:
    """As the server does it."""
    monkeypatch.setenv(variable, "x")
    with pytest.raises(SettingsError) as refused:
        load()
    assert told in str(refused.value)


def test_a_secret_is_no_flag() -> None:
    """Everybody on the machine can read a command line."""
    ran = run_here("notify", "--help")
    assert "--tencent-secret-id" in ran.out
    assert "--tencent-secret-key" not in ran.out
