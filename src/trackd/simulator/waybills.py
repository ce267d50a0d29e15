"""Waybill numbers as people know them, each issued once.

Domestic ones look like those of Chinese couriers; those of parcels that go abroad follow UPU S10,
so the number itself says which way a parcel goes.
"""

import re
from bisect import bisect
from random import Random
from typing import Final

_S10: Final = re.compile(r"[A-Z]{2}[0-9]{9}[A-Z]{2}").fullmatch
_S10_WEIGHTS = (8, 6, 4, 2, 3, 5, 9, 7)
_S10_SERIALS = 10**8
_S10_SERVICES = (
    "LX",
    "EE",
    "RX",
    "CX",
    "LK",
    "EA",
    "RB",
    "CP",
)  # letters, EMS, registered, parcels

# Brands, how many digits follow, and how often up to and including each.
_DOMESTIC: Final = (("SF", 13), ("YT", 13), ("JT", 13), ("78", 12))
_SHARES: Final = (0.3, 0.6, 0.8, 1.0)
# Odd and no multiple of 5, so a walk of this step through all serials meets each once.
_STEP: Final = 6_180_339_887


def s10_check_digit(serial: int) -> int:
    """The check digit of a serial of at most eight digits (UPU S10-12, 5.2.3)."""
    digits = f"{serial:08d}"
    rest = 11 - sum(w * int(d) for w, d in zip(_S10_WEIGHTS, digits, strict=True)) % 11
    return {10: 0, 11: 5}.get(rest, rest)


def is_s10(waybill_number: str) -> bool:
    """Whether a number has the form of UPU S10 and the right check digit."""
    return bool(_S10(waybill_number)) and s10_check_digit(int(waybill_number[2:10])) == int(
        waybill_number[10]
    )


class WaybillNumbers:
    """Issues numbers; the same rng and shares issue the same ones."""

    def __init__(self, rng: Random, *, cross_border_share: float) -> None:
        self._rng = rng
        self._cross_border_share = cross_border_share
        self._issued = [0] * (len(_DOMESTIC) + 1)
        self._first = rng.randrange(10**12)

    def issue(self) -> str:
        """A number that was not issued before."""
        if self._rng.random() < self._cross_border_share:
            return self._s10(self._next(len(_DOMESTIC)))
        brand = bisect(_SHARES, self._rng.random())
        prefix, digits = _DOMESTIC[brand]
        serial = (self._first + self._next(brand) * _STEP) % 10**digits
        return f"{prefix}{serial:0{digits}d}"

    def _next(self, series: int) -> int:
        self._issued[series] += 1
        return self._issued[series]

    def _s10(self, nth: int) -> str:
        service = _S10_SERVICES[nth // _S10_SERIALS % len(_S10_SERVICES)]
        serial = (self._first + nth * _STEP) % _S10_SERIALS
        return f"{service}{serial:08d}{s10_check_digit(serial)}CN"
