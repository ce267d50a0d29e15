"""Timelines read: the rows of the events table, and those that are ahead of it (statuses.py).

After a crash an event may be in both, for a while: it is the same one.
"""

from collections.abc import Iterator

from trackd.store.ahead import Ahead, EventRow
from trackd.store.engine_contract import Engine
from trackd.store.keys import Table, events_prefix
from trackd.store.pages import Page, merged


class Timelines:
    """The events of one partition, by event key. Everything here raises DataDamaged."""

    def __init__(self, engine: Engine, ahead: Ahead) -> None:
        self._engine = engine
        self._ahead = ahead

    def get(self, key: bytes) -> bytes | None:
        """The event with this key; None if there is none."""
        return self._ahead.get(key) or self._engine.get(Table.EVENTS, key)

    def rows(self, key: bytes) -> Iterator[EventRow]:
        """The events of the waybill with this status key, in order; those of this moment."""
        prefix = events_prefix(key)
        return merged(self._engine.scan_prefix(Table.EVENTS, prefix), self._ahead.of(prefix))

    def page(self, key: bytes, start: bytes = b"", *, rows_max: int, bytes_max: int) -> Page:
        """The first page (pages.py) of these; start: the event key from which on."""
        prefix = events_prefix(key)
        beside = self._ahead.of(prefix)
        if start and beside:
            beside = [row for row in beside if row[0] >= start]
        return self._engine.read_page(
            Table.EVENTS, prefix, start, beside=beside, rows_max=rows_max, bytes_max=bytes_max
        )
