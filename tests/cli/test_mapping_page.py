"""docs/mapping.md: its example gives what it says, and it names every key that there is."""

import re
from datetime import datetime
from pathlib import Path

from tests.cli.conftest import ROOT, Trackd
from trackd.cli.files.mapping import Csv, EventMapping, FileMapping, ReceiptMapping

PAGE = (ROOT / "docs" / "mapping.md").read_text()


def block(kind: str) -> str:
    """The page's only code block of a kind."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_example_gives_what_the_page_says(trackd: Trackd, tmp_path: Path) -> None:
    """Three events with their times, places and reason; the fourth row is listed."""
    (tmp_path / "export.csv").write_text(block("csv"))
    (tmp_path / "mapping.toml").write_text(block("toml"))
    ran = trackd("ingest", "export.csv", "--mapping", "mapping.toml", "--json")
    assert (ran.document["accepted"], ran.document["rejected"]) == (3, 1)
    assert '"reason":"NO_EVENT"' in (tmp_path / "export.csv.rejected.jsonl").read_text()
    delivered, failed, picked_up = trackd("track", "AB-1001", "--json").document["events"]
    assert [event["code"] for event in (picked_up, failed, delivered)] == [
        *("PICKED_UP", "DELIVERY_ATTEMPT_FAILED", "DELIVERED"),
    ]
    assert (picked_up["facility_code"], failed["reason"]) == ("FR-Lyon", "RECIPIENT_ABSENT")
    assert picked_up["location"] == {"latitude": 45.76, "longitude": 4.84}
    assert picked_up["occurred_at_ms"] == (
        round(datetime.fromisoformat("2026-03-12T09:15+01:00").timestamp() * 1000)
    )


def test_every_key_is_on_the_page() -> None:
    """Nothing that a mapping can say is a secret."""
    for table in (FileMapping, EventMapping, ReceiptMapping, Csv):
        for name in table.model_fields:
            assert re.search(rf"\b{name}\b", PAGE), f"{name} is not on the page"
