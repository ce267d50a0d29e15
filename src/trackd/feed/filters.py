"""Which changes a reader wants. Fields are ANDed, the values of one field ORed; empty means all."""

from collections.abc import Iterable
from dataclasses import dataclass

from trackd.domain.validation import (
    SHORT_TEXT_LENGTH_MAX,
    WAYBILL_NUMBER_RULE,
    normal_waybill_number,
)
from trackd.domain.vocabulary import Flag, Milestone
from trackd.feed.change import LoggedChange
from trackd.store.records import CORRECTION, FIRST_OCCURRENCE

VALUES_MAX = 1_000
_NEWS = FIRST_OCCURRENCE | CORRECTION


class UnusableFilter(ValueError):
    """A filter that cannot be used; field names the part at fault, limit the bound it exceeded."""

    def __init__(self, field: str, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Filter:
    """Which changes are told; the default is all of them. flags: a mask."""

    waybill_numbers: frozenset[str] = frozenset()
    milestones: frozenset[int] = frozenset()
    flags: int = 0
    facility_codes: frozenset[str] = frozenset()
    news_only: bool = False

    @classmethod
    def of(
        cls,
        *,
        waybill_numbers: Iterable[str] = (),
        milestones: Iterable[int] = (),
        flags: Iterable[int] = (),
        facility_codes: Iterable[str] = (),
        account_ids: Iterable[str] = (),
        news_only: bool = False,
    ) -> "Filter":
        """The filter of a ChangeFilter's fields. Raises UnusableFilter."""
        if any(True for _ in account_ids):
            raise UnusableFilter("account_ids", "no shipment belongs to an account yet")
        return cls(
            frozenset(_waybill_numbers(list(waybill_numbers))),
            frozenset(_known("milestones", milestones, Milestone)),
            sum(1 << flag for flag in _known("flags", flags, Flag)),
            frozenset(_facility_codes(list(facility_codes))),
            news_only,
        )

    @property
    def wants_all(self) -> bool:
        """Whether every change matches."""
        return not (
            self.waybill_numbers
            or self.milestones
            or self.flags
            or self.facility_codes
            or self.news_only
        )

    def matches(self, change: LoggedChange) -> bool:
        """Whether the change is wanted."""
        return (
            (not self.milestones or change.milestone in self.milestones)
            and (not self.flags or bool((change.flags ^ change.flags_before) & self.flags))
            and (not self.facility_codes or change.facility_code in self.facility_codes)
            and (not self.waybill_numbers or change.waybill_number in self.waybill_numbers)
            and (not self.news_only or _is_news(change))
        )


ALL = Filter()


def _is_news(change: LoggedChange) -> bool:
    """A milestone for the first time, flags raised or cleared, or a correction."""
    return bool(change.marks & _NEWS) or change.flags != change.flags_before


def _waybill_numbers(texts: list[str]) -> list[str]:
    _bounded("waybill_numbers", texts)
    numbers = []
    for text in texts:
        number = normal_waybill_number(text)
        if number is None:
            raise UnusableFilter("waybill_numbers", f"each {WAYBILL_NUMBER_RULE}")
        numbers.append(number)
    return numbers


def _facility_codes(codes: list[str]) -> list[str]:
    _bounded("facility_codes", codes)
    for code in codes:
        if not 1 <= len(code) <= SHORT_TEXT_LENGTH_MAX:
            message = f"each must have 1-{SHORT_TEXT_LENGTH_MAX} characters"
            raise UnusableFilter("facility_codes", message, limit=SHORT_TEXT_LENGTH_MAX)
    return codes


def _bounded(field: str, values: list[str]) -> None:
    if len(values) > VALUES_MAX:
        message = f"at most {VALUES_MAX}, not {len(values)}"
        raise UnusableFilter(field, message, limit=VALUES_MAX)


def _known(field: str, numbers: Iterable[int], words: type[Milestone | Flag]) -> set[int]:
    wanted = {int(number) for number in numbers}
    for number in sorted(wanted):
        if not number or number not in words._value2member_map_:
            raise UnusableFilter(field, f"{number} is not a {words.__name__}")
    return wanted
