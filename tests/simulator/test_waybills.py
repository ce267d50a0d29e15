"""Waybill numbers look like those of the trade, and none is issued twice."""

import re
from random import Random

import pytest

from trackd.simulator.waybills import WaybillNumbers, is_s10, s10_check_digit


@pytest.mark.parametrize(
    ("serial", "digit"),
    [
        (47312482, 9),  # the example of UPU S10
        (11111111, 5),  # sum 44: remainder 0, so 11 becomes 5
        (8, 0),  # sum 56: remainder 1, so 10 becomes 0
    ],
)
def test_s10_check_digit_follows_the_standard(serial: int, digit: int) -> None:
    """Weights 8 6 4 2 3 5 9 7, modulo 11, with 10 and 11 written as 0 and 5."""
    assert s10_check_digit(serial) == digit


def test_only_the_right_check_digit_makes_an_s10_number() -> None:
    """Of ten numbers that differ in the check digit, one is valid; other forms never are."""
    assert [d for d in range(10) if is_s10(f"RA47312482{d}GB")] == [9]
    assert not any(map(is_s10, ("SF1234567890123", "78123456789012", "RA473124829", "")))


def test_numbers_have_the_forms_of_the_trade_in_their_shares() -> None:
    """Domestic brands and S10 numbers, the latter as often as asked for, each number once."""
    numbers = WaybillNumbers(Random(7), cross_border_share=0.1)
    issued = [numbers.issue() for _ in range(20_000)]
    assert len(set(issued)) == len(issued)
    domestic = [n for n in issued if re.fullmatch(r"(SF|YT|JT)\d{13}|78\d{12}", n)]
    abroad = [n for n in issued if is_s10(n) and n.endswith("CN")]
    assert len(domestic) + len(abroad) == len(issued)
    assert 0.09 < len(abroad) / len(issued) < 0.11
    assert {n[:2] for n in domestic} == {"SF", "YT", "JT", "78"}
