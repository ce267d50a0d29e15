"""`trackd endpoints`: what people type, and what scripts read."""

from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Ran, run, run_here
from tests.conftest import Serve


def test_the_life_of_an_endpoint(serve: Serve, tmp_path: Path) -> None:
    """Made, listed, changed, disabled and deleted; its secret is shown once, to whoever made it."""
    server = serve("--workers", "1", "--partitions", "1")

    def trackd(*words: str) -> Ran:
        return run("endpoints", *words, server=server.grpc, cwd=tmp_path)

    filters = ("--milestone", "delivered", "--facility", "PEK-03")
    url = "https://hooks.example.com/trackd"
    made = trackd("create", url, *filters, "--description", "shop 7", "--cloudevents", "--json")
    assert made.document["secret"].startswith("whsec_")
    endpoint = made.document["endpoint"]
    assert endpoint["envelope"] == "CLOUDEVENTS"
    assert endpoint["filter"] == {"milestones": ["DELIVERED"], "facility_codes": ["PEK-03"]}
    listed = trackd("list")
    assert endpoint["id"] in listed.out
    assert "shop 7" in listed.out
    assert "whsec_" not in listed.out
    changed = trackd("update", endpoint["id"], "--no-filter", "--all-changes", "--json").document
    assert "filter" not in changed
    assert (changed["all_changes"], changed["url"]) == (True, url)
    assert changed["description"] == "shop 7", "what is not named stays"
    people = ("--quiet", "22:00-08:00", "--cap", "5/hour", "--lang", "en")
    key = "11112222-3333-4444-5555-666677778888"
    told = trackd("create", f"wecombot://{key}", "--message", *people)
    assert "secret" not in told.out
    message = orjson.loads(trackd("list", "--json").out.splitlines()[-1])
    assert {"quiet_hours", "rate_cap"} <= message.keys()
    awake = trackd("update", message["id"], "--no-quiet", "--json").document
    assert "quiet_hours" not in awake
    assert awake["rate_cap"] == message["rate_cap"], "what is not named stays"
    assert "rate_cap" not in trackd("update", message["id"], "--no-cap", "--json").document
    torn = trackd("update", message["id"], "--no-cap", "--cap", "5/day")
    assert (torn.code, "--no-cap" in torn.err) == (2, True)
    assert key not in told.out + trackd("list", "--json").out
    disabled = trackd("disable", endpoint["id"], "--reason", "moved", "--json").document
    assert (disabled["state"], disabled["disabled_reason"]) == ("DISABLED", "moved")
    tested = trackd("test", endpoint["id"])
    assert tested.code == 1
    assert "trackd notify" in tested.err
    assert trackd("delete", endpoint["id"]).code == 0
    gone = trackd("show", endpoint["id"])
    assert gone.code == 1
    assert "there is no endpoint" in gone.err
    left = [orjson.loads(line) for line in trackd("list", "--json").out.splitlines()]
    assert [each["kind"] for each in left] == ["MESSAGE"]
    refused = trackd("create", "https://10.0.0.1/")
    assert refused.code == 2
    assert "not one of the public internet" in refused.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--milestone", "LOST"), "must be one of REGISTERED, PICKED_UP"),
        (("--flag", "unspecified"), "must be one of DAMAGED"),
        (("--quiet", "at night"), "22:00-08:00"),
        (("--cap", "many"), "5/hour"),
    ],
)
def test_an_option_that_means_nothing(words: tuple[str, ...], told: str) -> None:
    """A usage error that says what could have been meant, before anybody is asked."""
    ran = run_here("endpoints", "create", "https://hooks.example.com/", *words)
    assert ran.code == 2
    assert told in ran.err
