"""The notifier's settings for messages: what they become, and what is refused with its reason."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from trackd.domain.catalogue import Language
from trackd.notify.message_options import message_options
from trackd.notify.messages.news import Kind
from trackd.notify.settings import NotifySettings


def test_what_the_settings_become(tmp_path: Path) -> None:
    """Every one of them reaches the sender."""
    cities = tmp_path / "cities.csv"
    cities.write_text("facility_code,zh,en\nSHA-D07,上海,Shanghai\n")
    options = message_options(
        NotifySettings(
            message_schemes="wecombot, sms",
            message_urgent="problem,correction",
            message_time_zone="Europe/Berlin",
            message_cities=cities,
            tracking_link="https://example.com/{waybill}",
            message_threads=3,
            message_timeout_s=7,
            unsafe_allow_local_webhooks=True,
        )
    )
    assert options.schemes == ("wecombot", "sms")
    assert options.urgent == {Kind.PROBLEM, Kind.CORRECTION}
    assert options.time_zone == "Europe/Berlin"
    assert options.cities["SHA-D07"][Language.EN] == "Shanghai"
    assert options.tracking_link == "https://example.com/{waybill}"
    assert (options.threads, options.timeout_s, options.allow_local) == (3, 7, True)
    default = message_options(NotifySettings())
    assert (default.urgent, default.cities, default.allow_local) == (frozenset(), {}, False)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("message_urgent", "problem,soon", "must be of"),
        ("message_schemes", "slack;sms", "with commas between"),
        ("message_schemes", "slack://,sms", "with commas between"),
        ("message_time_zone", "Nowhere/Land", "no time zone"),
        ("message_cities", "/nowhere/cities.csv", "cannot be read"),
        ("tracking_link", "http://example.com/{waybill}", "https"),
        ("tracking_link", "https://example.com/", "waybill"),
    ],
)
def test_a_setting_with_a_mistake_is_refused(name: str, value: str, why: str) -> None:
    """At the start, not with the first text."""
    with pytest.raises(ValidationError, match=why):
        NotifySettings(**{name: value})  # type: ignore[arg-type]
