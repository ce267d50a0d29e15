"""The table of cities: read as it is written, or refused with the line."""

from pathlib import Path

import pytest

from trackd.domain.catalogue import Language
from trackd.notify.messages.cities import CitiesUnreadable, read_cities


def test_a_table_is_read(tmp_path: Path) -> None:
    """As a spreadsheet writes it: with a mark at the beginning, quotes and Windows' line ends."""
    file = tmp_path / "cities.csv"
    text = 'facility_code,zh,en\r\nSHA-D07,上海,Shanghai\r\n\r\nWAS-1,华盛顿,"Washington, D.C."\r\n'
    file.write_bytes(text.encode("utf-8-sig"))
    cities = read_cities(file)
    assert cities["SHA-D07"][Language.ZH] == "上海"
    assert cities["WAS-1"][Language.EN] == "Washington, D.C."
    assert len(cities) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "first line"),
        ("SHA-D07,上海,Shanghai\n", "first line"),
        ("facility_code,zh,en\nSHA-D07,上海\n", "line 2"),
        ("facility_code,zh,en\nA,b,c\nSHA-D07,上海," + "x" * 61 + "\n", "line 3"),
        ('facility_code,zh,en\n"SHA', "cannot be read"),
    ],
)
def test_a_table_with_a_mistake_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """With the place of the mistake; so is one that is not there."""
    file = tmp_path / "cities.csv"
    file.write_text(text)
    with pytest.raises(CitiesUnreadable, match=why):
        read_cities(file)
    with pytest.raises(CitiesUnreadable, match="cannot be read"):
        read_cities(tmp_path / "none.csv")
