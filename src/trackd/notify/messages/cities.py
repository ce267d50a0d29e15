"""What people call the place of a facility: a table that the notifier is given.

    facility_code,zh,en        the first line of the file
    SHA-D07,上海,Shanghai

A facility's code is of no use to a recipient, and its address none of their business; the city is
what a message tells. A facility that is not in the table is not told.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

from trackd.domain.catalogue import Language

Cities = Mapping[str, Mapping[Language, str]]
"""By facility code, then language."""

_COLUMNS = ["facility_code", *Language]
CITY_CHARACTERS_MAX = 60


class CitiesUnreadable(ValueError):
    """The table cannot be used; the message says where and why."""


def read_cities(path: Path) -> Cities:
    """The table. An empty name is one that is not told. Raises CitiesUnreadable."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CitiesUnreadable(f"{path} cannot be read: {error}") from None
    if not rows or rows[0] != _COLUMNS:
        raise CitiesUnreadable(f"{path}: the first line must be {','.join(_COLUMNS)}")
    cities = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(_COLUMNS):
            raise CitiesUnreadable(f"{path}, line {number}: must have {len(_COLUMNS)} columns")
        code, *names = (cell.strip() for cell in row)
        if any(len(name) > CITY_CHARACTERS_MAX or not name.isprintable() for name in names):
            raise CitiesUnreadable(
                f"{path}, line {number}: at most {CITY_CHARACTERS_MAX} printable characters a name"
            )
        cities[code] = dict(zip(Language, names, strict=True))
    return cities
