"""The table of statuses, and what is ahead of the disk: written back behind the log, in key order.

A commit writes the log and nothing else. Rows of statuses and of timelines are derived from it:
they stay in memory, and a hand goes round over all keys, slot by slot (ahead.py), once in
`write_back_events`: it writes the events that gathered in a slot and the latest statuses of their
waybills. So a status is written once for many scans, neighbours in order of their keys, which the
engine neither has to sort nor, much, to merge.

* What is written back is not in the engine's log (Engine.write_unlogged): the store's own has it
  all. The checkpoint, *the tables have everything up to that position*, moves on once no crash can
  lose those rows any more; after a crash the entries behind it bring everything up to date
  (replay.py).
* `rows` is one table for dirty and clean rows, because looking a cold key up is most of what a scan
  costs. A row is ahead of the disk, dirty, if its position is greater than what its slot was
  written up to. Events that are ahead of the disk are in `ahead`.
* What is ahead is about half of write_back_events: in events, and those that are larger than
  AHEAD_EVENT_BYTES count as several. It is full at twice as many and _FULL_EVENTS, while the
  engine takes the log and not this: then nothing is planned. Clean rows are bounded in bytes: what
  was cleaned (or read) first and not dirtied since is forgotten first.
* Rows change with a plan (or its replay) only, and are clean once they are written; readers see
  planned rows and wait until their position is durable.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from trackd import compiled
from trackd.store import ahead as plain_ahead
from trackd.store import rows as plain
from trackd.store.ahead import SLOTS, EventRow
from trackd.store.engine_contract import Engine, Rows
from trackd.store.keys import Table
from trackd.store.records import STATUS_HEAD

StatusRows = (compiled.load("trackd.store._planning") or plain).Rows
Ahead = (compiled.load("trackd.store._ahead") or plain_ahead).Ahead

# What a cached row costs beside its bytes: a dict slot, two object headers, the key.
ROW_OVERHEAD_BYTES = 240
# Key and value of an event that counts once.
AHEAD_EVENT_BYTES = 512
# What is written back at once, if that is less than all: a write and a turn of the event loop cost
# as much as writing a hundred rows.
_WORTH_EVENTS = 500
# As much as so many rounds bring, and some more where rounds are short: half a round is usual.
_FULL_ROUNDS = 2
_FULL_EVENTS = 20_000
# However many events come in one commit: one round writes them all, and as long as it lasts another
# is due, or a last part of it would not be worth a write.
_DUE_ROUNDS_MAX = 2
# Rows that the table has room for from the beginning, at most: as many as eight gigabytes hold. It
# grows beyond them.
_PRESIZED_ROWS_MAX = 1 << 24
# Rows that were dirtied again stay on the list of what to forget; it may be so many times longer
# than the rows that may stay.
_CLEAN_LIST_FACTOR = 2


@dataclass(frozen=True, slots=True)
class WriteBack:
    """Rows due to be written: those of the slots from `slot` to `end`, all up to `position`."""

    slot: int
    end: int
    position: int
    events: list[EventRow]
    # Of the statuses.
    keys: list[bytes]
    rows: list[bytes]

    @property
    def batch(self) -> list[tuple[Table, Rows]]:
        """What to write."""
        statuses = list(zip(self.keys, self.rows, strict=True))
        return [(Table.EVENTS, self.events), (Table.STATUS, statuses)]


class StatusTable:
    """The statuses of one partition, by status key. Rows are bytes (records.encode_status)."""

    def __init__(
        self,
        engine: Engine,
        *,
        cache_bytes: int,
        write_back_events: int,
        checkpoint: int,
        presized: bool = False,
    ) -> None:
        """presized: the table has room for all that it may hold, and never stops to grow."""
        self._engine = engine
        self._cache_bytes = cache_bytes
        self._write_back_events = max(write_back_events, 1)
        # The rows in memory; others read it, and change it through the methods only.
        rows_max = write_back_events + cache_bytes // (STATUS_HEAD.size + ROW_OVERHEAD_BYTES)
        self.rows: plain.Rows = StatusRows(min(rows_max, _PRESIZED_ROWS_MAX) if presized else 0)
        # The events that are in the log and not in their table.
        self.ahead: plain_ahead.Ahead = Ahead(checkpoint)
        self.checkpoint = checkpoint
        self.dirty_count = 0
        # The hand: the slot that is next, how many more are due, how often it wrote.
        self._hand = 0
        self._slots_due = 0.0
        # Slots that were written out of their turn, and what they were written up to in it: the
        # hand has them still before it, with all that is behind them.
        self._out_of_turn: dict[int, int] = {}
        self.written_back_count = 0
        # The checkpoint after each unlogged write of the engine that a crash may still lose.
        self._unkept: deque[tuple[int, int]] = deque()
        # Keys in the order in which to forget them, with the position when they were clean and the
        # length of their rows together. Tuples of bytes are nothing to the garbage collector; a
        # million keys in lists stopped everything for 40 ms now and then.
        self._clean: deque[tuple[int, tuple[bytes, ...], int]] = deque()
        self._clean_listed = self._clean_length = 0
        # The position that no row on disk is beyond, but those that a replay finds.
        self._latest_written = checkpoint

    @property
    def cached_bytes(self) -> int:
        """An estimate of the memory of the clean rows."""
        return int((len(self.rows) - self.dirty_count) * self._mean_bytes)

    @property
    def _mean_bytes(self) -> float:
        """What a clean row takes: the mean of those that are listed."""
        return self._clean_length / max(self._clean_listed, 1) + ROW_OVERHEAD_BYTES

    def get(self, key: bytes) -> bytes | None:
        """The row of a waybill; None if it has no event. Raises DataDamaged."""
        row = self.rows.get(key)
        if row is None:
            row = self.fetch([key]).get(key)
        return row

    def fetch(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The rows of waybills that are not in `rows`, those that are there; one look at the disk.

        Raises DataDamaged.
        """
        missing = list(keys)
        found = {
            key: row
            for key, row in zip(missing, self._engine.get_many(Table.STATUS, missing), strict=True)
            if row is not None
        }
        if found:
            self.rows.update(found)
            self._cleaned(list(found), sum(map(len, found.values())))
        return found

    def put(self, changed: Mapping[bytes, bytes], dirtied: int, events: list[EventRow]) -> None:
        """Takes over what a plan changed: status rows, and the rows of its events.

        dirtied: how many of the status rows were not ahead of the disk before.
        """
        self.rows.update(changed)
        self.ahead.put(events)
        self.dirty_count += dirtied
        if events:
            weight = self.ahead.size / (self.ahead.count * AHEAD_EVENT_BYTES)
            due = len(events) * max(weight, 1.0) * SLOTS / self._write_back_events
            self._slots_due = min(self._slots_due + due, _DUE_ROUNDS_MAX * SLOTS)

    @property
    def is_due(self) -> bool:
        """Whether it is worth to write something back."""
        events = min(_WORTH_EVENTS, self._write_back_events)
        is_worth = self._slots_due >= events * SLOTS / self._write_back_events
        return is_worth or self.is_full or bool(self.ahead.crowded)

    @property
    def is_full(self) -> bool:
        """Whether so much is ahead of the disk that nothing more may be put here for now."""
        ahead = max(self.ahead.count, self.ahead.size // AHEAD_EVENT_BYTES)
        return ahead > _FULL_ROUNDS * self._write_back_events + _FULL_EVENTS

    def due(self, position: int, rows_max: int) -> WriteBack | None:
        """What is to be written back when all up to position is in the log; None if nothing is.

        As much as came since, so that the work is spread evenly; events of one slot, or rows_max.
        The rows stay dirty until `written_back`.
        """
        if not self.is_due:
            return None
        if self.ahead.crowded:
            return self._of(next(iter(self.ahead.crowded)), 1, position, rows_max)
        while self._slots_due >= 1 or self.is_full:
            slots = SLOTS if self.is_full else min(int(self._slots_due), SLOTS)
            write_back = self._of(self._hand, slots, position, rows_max)
            if write_back.events:
                return write_back
            self._passed(write_back)
        return None

    def everything(self, position: int, rows_max: int) -> WriteBack | None:
        """Like `due`, for a shutdown: whatever is dirty, a part at a time."""
        while self.ahead.count:
            write_back = self._of(self._hand, SLOTS, position, rows_max)
            if write_back.events:
                return write_back
            self._passed(write_back)
        return None

    def _of(self, slot: int, slots: int, position: int, rows_max: int) -> WriteBack:
        events, keys, end = self.ahead.take(slot, slots, rows_max)
        rows = self.rows.get_all(keys)
        assert None not in rows, "a row that is ahead of the disk stays in memory"
        return WriteBack(slot, end, position, events, keys, cast(list[bytes], rows))

    def _passed(self, write_back: WriteBack) -> None:
        """The slots of a WriteBack have nothing that the disk has not, and are due no more."""
        slot, end = write_back.slot, write_back.end
        if slot == self._hand:
            self._slots_due = max(self._slots_due - (end - slot), 0.0)
            self._hand = end % SLOTS
            for passed in [each for each in self._out_of_turn if slot <= each < end]:
                del self._out_of_turn[passed]
        else:
            self._out_of_turn.setdefault(slot, self.ahead.written[slot])
        self.ahead.written_out(slot, end, write_back.position)

    def written_back(self, write_back: WriteBack, unlogged: int) -> None:
        """The rows of a WriteBack are in the engine, by its unlogged write of that number."""
        self._passed(write_back)
        self._latest_written = write_back.position
        self.dirty_count -= len(write_back.keys)
        self.written_back_count += 1
        self._unkept.append((unlogged, self.written_position))
        self._cleaned(write_back.keys, sum(map(len, write_back.rows)))

    @property
    def written_position(self) -> int:
        """The position up to which the tables have everything, kept by a crash or not."""
        if not self.ahead.count:
            return self._latest_written
        # The slot that is next in turn was written longest ago.
        return self._out_of_turn.get(self._hand, self.ahead.written[self._hand])

    def kept(self, unlogged: int) -> bool:
        """No crash can lose what the engine's first so many unlogged writes wrote.

        Whether the checkpoint has moved on; it is the caller's to have it written to the log.
        """
        checkpoint = self.checkpoint
        while self._unkept and self._unkept[0][0] <= unlogged:
            # Where nothing was ahead, its checkpoint was further than that of a later one may be.
            checkpoint = max(checkpoint, self._unkept.popleft()[1])
        moved = checkpoint > self.checkpoint
        self.checkpoint = max(checkpoint, self.checkpoint)
        return moved

    def _cleaned(self, keys: list[bytes], length: int) -> None:
        """These rows may be forgotten, once others are colder no more."""
        self._clean.append((self._latest_written, tuple(keys), length))
        self._clean_listed += len(keys)
        self._clean_length += length
        while self._clean and (
            self.cached_bytes > self._cache_bytes
            or self._clean_listed * self._mean_bytes > self._cache_bytes * _CLEAN_LIST_FACTOR
        ):
            position, coldest, its_length = self._clean.popleft()
            self._clean_listed -= len(coldest)
            self._clean_length -= its_length
            self.rows.forget(coldest, position)
