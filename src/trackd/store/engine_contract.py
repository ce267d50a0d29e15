"""The contract of an engine: tables of bytes, atomic batches, durable by a flush.

`engine.py` keeps it on disk, `memory_engine.py` in a dict for tests and simulations, and one test
suite holds both to it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from trackd.store.keys import Table
from trackd.store.pages import Page, Row

Rows = Collection[tuple[bytes, bytes | None]]
Scan = Iterator[tuple[bytes, bytes]]


class Engine(Protocol):
    """Ordered tables of bytes.

    Order: keys are compared as bytes; those of events and status have HASH_LENGTH or more. Scans:
    one sees the rows of the moment at which its first one was taken. Atomicity: a batch is there
    wholly or not at all, after a crash too. Durability: what was written is on disk once a
    `flush_wal` that began afterwards has returned; a crash may lose what was written later, and
    never an earlier batch without all later ones. Unlogged writes are apart from this, and for rows
    that can be made again: a crash may lose any of them, of each table the later ones, until
    `kept_unlogged` counts them; and they are on disk only when every batch before them is.
    """

    def write(self, batch: Sequence[tuple[Table, Rows]]) -> None:
        """Puts every row of the batch, or deletes those of value None, all or nothing.

        Raises WriteStalled (nothing was written) or StorageFailed.
        """

    def flush_wal(self) -> None:
        """Makes everything written durable. Blocks: call it from a thread. Raises StorageFailed."""

    def write_unlogged(self, batch: Sequence[tuple[Table, Rows]]) -> int:
        """Like `write`, the cheaper way; the number of this write, from 1 on, for `kept_unlogged`.

        Of a table that has unlogged writes, those who need its rows after a crash use no other.
        """

    def kept_unlogged(self) -> int:
        """How many of the unlogged writes, in their order, no crash can lose any more."""

    def keep_unlogged(self) -> None:
        """Has no crash lose any unlogged write from before. Blocks: call it from a thread.

        Raises StorageFailed.
        """

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value of a key. Raises DataDamaged."""

    def get_many(self, table: Table, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of many keys, in their order; the cheaper way. Raises DataDamaged."""

    def scan_prefix(self, table: Table, prefix: bytes, start: bytes = b"") -> Scan:
        """The rows whose key begins with prefix and is start or greater, in key order.

        The prefix has HASH_LENGTH bytes or more. Forward only. Raises DataDamaged
        rather than end early.
        """

    def read_page(
        self,
        table: Table,
        prefix: bytes,
        start: bytes = b"",
        *,
        beside: Sequence[Row] = (),
        rows_max: int,
        bytes_max: int,
    ) -> Page:
        """The page (pages.py) that such a scan begins with; the cheaper way to read a few rows.

        beside: rows in key order that are read as if they were in the table.
        """

    def scan_all(self, table: Table, start: bytes = b"") -> Scan:
        """Every row from start on, in key order. Raises DataDamaged rather than end early."""

    def last_key(self, table: Table) -> bytes | None:
        """The greatest key of a table; None if it is empty. Raises DataDamaged."""

    def delete_all(self, table: Table) -> None:
        """Deletes every row of a table. Raises what `write` raises."""

    def delete_before(self, table: Table, key: bytes, batch: Sequence[tuple[Table, Rows]]) -> None:
        """Deletes every row of a table before key, and writes the batch, all or nothing."""

    def figures(self) -> Mapping[str, int]:
        """What the engine says of itself, by the name of the figure; see engine_figures.py."""

    def close(self) -> None:
        """Closes the files. Blocks: call it from a thread. Nothing may be running."""
