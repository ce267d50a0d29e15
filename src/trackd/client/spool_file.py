"""The file on the device that keeps scans until the server has them: one SQLite database.

    event_counter   next                     the counter of the next reserved event id
    waiting         sequence · event         scans the server has not answered for, in order
    rejected        sequence · event · reason · field · message · rejected_at_ms

`event` is the wire bytes of a ScanEvent, as sent. `application_id` says that the file is a spool,
`user_version` in which format.

Plain and synchronous, for one thread: the caller groups operations between `begin` and `commit`.
What is committed is on disk by fsync. Nothing here knows threads, asyncio or gRPC.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from trackd.client.errors import SpoolBroken, SpoolError, SpoolFull, SpoolInUse
from trackd.client.events import RejectedScan, kept_event
from trackd.client.options import SpoolOptions
from trackd.client.window import Entry, RejectedEntry

APPLICATION_ID: Final = 0x74726B64  # "trkd"
FORMAT_VERSION: Final = 1

# What a row costs beside its event: key, lengths, its share of the page.
ROW_BYTES: Final = 24

_SCHEMA: Final = f"""
    CREATE TABLE event_counter (next INTEGER NOT NULL);
    CREATE TABLE waiting (sequence INTEGER PRIMARY KEY, event BLOB NOT NULL);
    CREATE TABLE rejected (
        sequence INTEGER PRIMARY KEY,
        event BLOB NOT NULL,
        reason INTEGER NOT NULL,
        field TEXT NOT NULL,
        message TEXT NOT NULL,
        rejected_at_ms INTEGER NOT NULL
    );
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {FORMAT_VERSION};
"""


@dataclass(frozen=True, slots=True)
class SpoolLevel:
    """How full the spool is.

    Scans up to and including the sequence `settled` are answered for; `last` is that of the newest.
    """

    settled: int
    last: int
    waiting_events: int
    rejected_events: int
    held_bytes: int


class SpoolFile:
    """One open spool.

    - One process at a time: a second one gets SpoolInUse. The lock goes with the process, however
      it ends.
    - A sequence is never given to two scans that are in the file together, and rises with time.
    - `level` is that of the last commit, or of the open group while there is one.
    """

    def __init__(self, path: Path, *, options: SpoolOptions) -> None:
        """Opens the file, and makes it where there is none; raises a SpoolError."""
        self._path = path.resolve()
        self._options = options
        # Of the file and its disk, looked at once in a group: it grows with the commit.
        self._own_and_free: tuple[int, int] | None = None
        self._connection = _open(path)
        try:
            self.level = self._count()
        except sqlite3.Error as failure:
            self._connection.close()
            raise spool_error(failure) from failure
        self._committed = self.level

    def begin(self) -> None:
        """Opens a group."""
        self._own_and_free = None
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Makes the group durable."""
        self._connection.execute("COMMIT")
        self._committed = self.level

    def roll_back(self) -> None:
        """Leaves everything as before the group."""
        self.level = self._committed
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def put(self, wires: Sequence[bytes]) -> int:
        """Appends scans, returns the sequence of the last. SpoolFull: none of them was taken."""
        put_bytes = sum(len(wire) + ROW_BYTES for wire in wires)
        held_bytes = self.level.held_bytes + put_bytes
        if held_bytes > self._options.bytes_max:
            raise SpoolFull(
                f"{self.level.waiting_events} scans wait, {self.level.rejected_events} rejected: "
                f"with {len(wires)} more the spool would hold over {self._options.bytes_max} bytes",
                reason="SPOOL_FULL",
                metadata={
                    "bytes_max": str(self._options.bytes_max),
                    "held_bytes": str(self.level.held_bytes),
                },
            )
        self._check_room(held_bytes + max(put_bytes, held_bytes - self._committed.held_bytes))
        first = self.level.last + 1
        self._connection.executemany("INSERT INTO waiting VALUES (?, ?)", enumerate(wires, first))
        self.level = replace(
            self.level,
            last=self.level.last + len(wires),
            waiting_events=self.level.waiting_events + len(wires),
            held_bytes=held_bytes,
        )
        return self.level.last

    def read(self, *, after: int, events_max: int, bytes_max: int) -> list[Entry]:
        """The scans behind `after`, in order, within the bounds but at least one."""
        rows = self._connection.execute(
            "SELECT sequence, event FROM waiting WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, events_max),
        )
        entries: list[Entry] = []
        read_bytes = 0
        for sequence, wire in rows:
            read_bytes += len(wire)
            if entries and read_bytes > bytes_max:
                break
            entries.append(Entry(sequence=sequence, wire=wire))
        rows.close()
        return entries

    def settle(self, *, through: int, rejected: Sequence[RejectedEntry]) -> None:
        """Forgets the scans up to and including `through`, but keeps `rejected` ones as such."""
        now_ms = time.time_ns() // 1_000_000
        self._connection.executemany(
            "INSERT INTO rejected VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    each.entry.sequence,
                    each.entry.wire,
                    each.reason,
                    each.field,
                    each.message,
                    now_ms,
                )
                for each in rejected
            ],
        )
        removed, removed_bytes = self._connection.execute(
            "SELECT count(*), total(length(event)) FROM waiting WHERE sequence <= ?", (through,)
        ).fetchone()
        self._connection.execute("DELETE FROM waiting WHERE sequence <= ?", (through,))
        freed_bytes = int(removed_bytes) + removed * ROW_BYTES
        kept_bytes = sum(len(each.entry.wire) + ROW_BYTES for each in rejected)
        self.level = replace(
            self.level,
            settled=through,
            waiting_events=self.level.waiting_events - removed,
            rejected_events=self.level.rejected_events + len(rejected),
            held_bytes=self.level.held_bytes - freed_bytes + kept_bytes,
        )

    def rejected(self, *, after: int, limit: int) -> list[tuple[int, RejectedScan]]:
        """The rejected scans behind `after` with their sequences, in order."""
        rows = self._connection.execute(
            "SELECT sequence, event, reason, field, message FROM rejected "
            "WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, limit),
        )
        return [
            (sequence, RejectedScan(kept_event(wire), reason, field, message))
            for sequence, wire, reason, field, message in rows
        ]

    def clear_rejected(self, *, through: int) -> int:
        """Forgets the rejected scans up to and including `through`; returns how many."""
        removed, removed_bytes = self._connection.execute(
            "SELECT count(*), total(length(event)) FROM rejected WHERE sequence <= ?", (through,)
        ).fetchone()
        self._connection.execute("DELETE FROM rejected WHERE sequence <= ?", (through,))
        self.level = replace(
            self.level,
            rejected_events=self.level.rejected_events - removed,
            held_bytes=self.level.held_bytes - int(removed_bytes) - removed * ROW_BYTES,
        )
        return int(removed)

    def reserve_event_ids(self, count: int) -> int:
        """The first of `count` counters that no one else will ever get."""
        (following,) = self._connection.execute(
            "UPDATE event_counter SET next = next + ? RETURNING next", (count,)
        ).fetchone()
        return int(following) - count

    def close(self) -> None:
        """Writes the log back into the file and gives the lock up."""
        self._connection.close()

    def _check_room(self, written_bytes: int) -> None:
        """Refuses to fill the disk: to forget what was sent takes some of it, too.

        written_bytes: what is held, and once more what the open group puts into the log.
        """
        # Room in the file itself counts: it does not shrink when scans are forgotten.
        own_bytes, free_bytes = self._own_and_free = self._own_and_free or self._looked_at()
        needed_bytes = written_bytes + written_bytes // 2 + self._options.disk_spare_bytes
        if own_bytes + free_bytes < needed_bytes:
            raise SpoolFull(
                f"the spool has {own_bytes} bytes and its disk {free_bytes} bytes free, where it "
                f"could need {needed_bytes}",
                reason="DISK_FULL",
                metadata={"disk_spare_bytes": str(self._options.disk_spare_bytes)},
            )

    def _looked_at(self) -> tuple[int, int]:
        log = self._path.with_name(self._path.name + "-wal")
        try:
            own_bytes = self._path.stat().st_size + (log.stat().st_size if log.exists() else 0)
            return own_bytes, shutil.disk_usage(self._path).free
        except OSError as failure:
            # What SQLite still writes into a file that was taken away ends with this process.
            raise SpoolBroken(f"the spool is gone: {failure}", reason="SPOOL_GONE") from failure

    def _count(self) -> SpoolLevel:
        (waiting, waiting_bytes, first, last_waiting) = self._connection.execute(
            "SELECT count(*), total(length(event)), min(sequence), max(sequence) FROM waiting"
        ).fetchone()
        (rejected, rejected_bytes, last_rejected) = self._connection.execute(
            "SELECT count(*), total(length(event)), max(sequence) FROM rejected"
        ).fetchone()
        last = max(last_waiting or 0, last_rejected or 0)
        return SpoolLevel(
            settled=last if first is None else first - 1,
            last=last,
            waiting_events=waiting,
            rejected_events=rejected,
            held_bytes=int(waiting_bytes + rejected_bytes) + (waiting + rejected) * ROW_BYTES,
        )


def spool_error(failure: sqlite3.Error) -> SpoolError:
    """What SQLite's failure means for whoever holds the device."""
    code = getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return SpoolFull("the disk of the spool is full", reason="DISK_FULL")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return SpoolInUse("another process has the spool open", reason="SPOOL_IN_USE")
    return SpoolBroken(f"the spool cannot be used: {failure}", reason="SPOOL_BROKEN")


def _open(path: Path) -> sqlite3.Connection:
    _create(path)
    try:
        # A timeout of 0: who finds the spool in use is told at once.
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as failure:
        raise spool_error(failure) from failure
    try:
        # Exclusive before the first access: the lock is then taken once and kept until the end, and
        # the log needs no shared memory file.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        connection.execute("BEGIN IMMEDIATE")
        _check_or_create_schema(connection)
        connection.execute("COMMIT")
    except sqlite3.Error as failure:
        connection.close()
        raise spool_error(failure) from failure
    except SpoolBroken:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Makes the file readable by its owner alone; SQLite gives its log the same rights."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        # Not even opened here: closing any descriptor of it would drop this process's SQLite lock.
        return
    except OSError as failure:
        raise SpoolBroken(
            f"the spool cannot be made: {failure}", reason="SPOOL_BROKEN"
        ) from failure


def _check_or_create_schema(connection: sqlite3.Connection) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables == 0:
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        # Counting from the hour of its making, a new spool of an old device repeats none of its
        # ids.
        connection.execute("INSERT INTO event_counter VALUES (?)", (time.time_ns() // 1_000_000,))
    elif application_id != APPLICATION_ID:
        raise SpoolBroken("the file is a database, but not a spool", reason="NOT_A_SPOOL")
    elif version > FORMAT_VERSION:
        raise SpoolBroken(
            f"the spool has format {version}, this client knows formats up to {FORMAT_VERSION}",
            reason="SPOOL_TOO_NEW",
        )
