"""Who wants which changes: an inverted index of filters, so that 200 cost little more than one.

A filter stands under the values of one of its fields only, the one that leaves the least to match,
so nobody is found twice. What nobody asks for is not looked up: each look-up is made for every
change. Knows nothing of what is done with what was found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Generic, TypeVar

from trackd import compiled
from trackd.feed.change import LoggedChange
from trackd.feed.filters import ALL, Filter

_compiled = compiled.load("trackd.feed._telling")

Reader = TypeVar("Reader")
# Those who stand under a value, each with what else has to match; None: nothing.
_Standing = dict[Reader, Filter | None]

_waybill_number = attrgetter("waybill_number")
_facility_code = attrgetter("facility_code")
_milestone = attrgetter("milestone")


class Wanted(Generic[Reader]):
    """Readers by what they want. `everything`: those who want every change, in no index."""

    def __init__(self) -> None:
        self.everything: dict[Reader, None] = {}
        self._unindexed: _Standing[Reader] = {}
        self._by_waybill: dict[str, _Standing[Reader]] = {}
        self._by_facility: dict[str, _Standing[Reader]] = {}
        self._by_milestone: dict[int, _Standing[Reader]] = {}
        self._by_flag: dict[int, _Standing[Reader]] = {}

    def add(self, reader: Reader, wanted: Filter) -> None:
        """Takes in a reader that is not in."""
        if wanted.wants_all:
            self.everything[reader] = None
            return
        by, values, rest = self._place_of(wanted)
        for standing in [by.setdefault(each, {}) for each in values] or [self._unindexed]:
            standing[reader] = rest

    def remove(self, reader: Reader, wanted: Filter) -> None:
        """Lets go of a reader that was taken in with this filter."""
        if wanted.wants_all:
            del self.everything[reader]
            return
        by, values, _ = self._place_of(wanted)
        for value in values:
            del by[value][reader]
            if not by[value]:
                del by[value]
        if not values:
            del self._unindexed[reader]

    def matched(self, changes: Sequence[LoggedChange]) -> Mapping[Reader, list[LoggedChange]]:
        """Those of the changes that each reader wants, in their order; but of `everything`."""
        if _compiled:
            found: dict[Reader, list[LoggedChange]] = _compiled.matched(
                changes, self._by_waybill, self._by_facility, self._by_milestone,
                self._by_flag, self._unindexed,
            )  # fmt: skip
            return found
        found = {}
        indexes: list[tuple[Mapping[Any, _Standing[Reader]], Callable[[LoggedChange], Any]]] = [
            (by, value_of)
            for by, value_of in (
                (self._by_waybill, _waybill_number),
                (self._by_facility, _facility_code),
                (self._by_milestone, _milestone),
            )
            if by
        ]
        for change in changes:
            standings = [
                standing
                for by, value_of in indexes
                if (standing := by.get(value_of(change))) is not None
            ]
            standings.append(self._by_flags(change.flags ^ change.flags_before))
            standings.append(self._unindexed)
            for standing in standings:
                for reader, rest in standing.items():
                    if rest is None or rest.matches(change):
                        found.setdefault(reader, []).append(change)
        return found

    def _by_flags(self, flags: int) -> _Standing[Reader]:
        """Those who stand under any of the flags in a mask, each once."""
        found: _Standing[Reader] = {}
        if flags:
            for flag, standing in self._by_flag.items():
                if flags >> flag & 1:
                    found |= standing
        return found

    def _place_of(
        self, wanted: Filter
    ) -> tuple[dict[Any, _Standing[Reader]], list[Any], Filter | None]:
        """The index that a filter stands in, under which values, and what is left of it."""
        if wanted.waybill_numbers:
            rest = replace(wanted, waybill_numbers=frozenset())
            return self._by_waybill, list(wanted.waybill_numbers), _or_none(rest)
        if wanted.facility_codes:
            rest = replace(wanted, facility_codes=frozenset())
            return self._by_facility, list(wanted.facility_codes), _or_none(rest)
        if wanted.milestones:
            rest = replace(wanted, milestones=frozenset())
            return self._by_milestone, list(wanted.milestones), _or_none(rest)
        flags = [flag for flag in range(16) if wanted.flags >> flag & 1]
        return self._by_flag, flags, _or_none(replace(wanted, flags=0))


def _or_none(rest: Filter) -> Filter | None:
    return None if rest == ALL else rest
