"""The spool of a device: scans stay on its disk until the server has them.

One thread owns the file and commits in groups: what arrives while one group is being flushed to
disk shares the next flush, which is where the rate comes from. Nothing here knows gRPC or the link.
"""

import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from trackd.client.errors import SpoolBroken, SpoolError, SpoolFull, SpoolInUse
from trackd.client.events import RejectedScan
from trackd.client.options import DEVICE_ID_CHARACTERS_MAX, SpoolOptions
from trackd.client.spool_file import SpoolFile, SpoolLevel, spool_error
from trackd.client.window import Entry, RejectedEntry

_Result = TypeVar("_Result")

# Beyond it the next operations wait for the next group; it bounds how long a caller waits for its
# own.
_GROUP_OPERATIONS_MAX: Final = 1_000


class Spool:
    """A durable queue in one file. Open it before the scanner, close it after.

    - A future that `put` returned resolves when its scans are on disk by fsync; it cannot be
      cancelled: what was put is either kept or refused with an exception.
    - Operations happen in the order in which they were asked for, from whatever thread.
    - After a disk error everything is refused with SpoolBroken until the spool is opened again:
      whether the last flush reached the disk cannot be known. A full disk refuses what it could not
      take, no more.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device_id: str,
        options: SpoolOptions | None = None,
    ) -> None:
        """Opens the file, and makes it where there is none; raises SpoolInUse, SpoolBroken, or
        SpoolFull where the disk has no room for it.

        `device_id` (1-32 printable ASCII characters) starts the event ids of this device.
        """
        if not (
            0 < len(device_id) <= DEVICE_ID_CHARACTERS_MAX
            and device_id.isascii()
            and device_id.isprintable()
        ):
            raise ValueError("device_id must be 1-32 printable ASCII characters")
        self.device_id = device_id
        self._options = options or SpoolOptions()
        self._file = SpoolFile(Path(path), options=self._options)
        self._operations: queue.SimpleQueue[_Operation[Any] | None] = queue.SimpleQueue()
        self._broken: SpoolError | None = None
        self._closing = threading.Lock()
        self._closed = False
        self._lent = False
        self._thread = threading.Thread(target=self._work, name="trackd-spool", daemon=True)
        self._thread.start()
        self._event_ids = _EventIds(self._reserve, count=self._options.event_ids_reserved)

    def event_id(self) -> str:
        """A new event id, `device:counter`. No other call ever returns it, also after a crash.

        Touches the disk once in `event_ids_reserved` calls, and then ahead of need.
        """
        return f"{self.device_id}:{self._event_ids.take()}"

    def level(self) -> SpoolLevel:
        """How full the spool is, after everything asked for before."""
        return self._submit(lambda file: file.level).result()

    def rejected(self, *, after: int = 0, limit: int = 1_000) -> list[tuple[int, RejectedScan]]:
        """Rejected scans and their sequences, the oldest first; go on with `after` the last."""
        return self._submit(lambda file: file.rejected(after=after, limit=limit)).result()

    def clear_rejected(self, *, through: int) -> int:
        """Forgets the rejected scans up to and including that sequence; returns how many."""
        return self._submit(lambda file: file.clear_rejected(through=through)).result()

    def put(self, wires: Sequence[bytes]) -> Future[int]:
        """Keeps scans in order, all or none: the last one's sequence, or SpoolFull, SpoolBroken."""
        return self._submit(lambda file: file.put(wires))

    def read(self, *, after: int, events_max: int, bytes_max: int) -> Future[list[Entry]]:
        """The scans behind `after` that wait, in order, within the bounds but at least one."""
        return self._submit(
            lambda file: file.read(after=after, events_max=events_max, bytes_max=bytes_max)
        )

    def settle(self, *, through: int, rejected: Sequence[RejectedEntry]) -> Future[None]:
        """Forgets the scans up to and including `through`, but keeps `rejected` ones as such."""
        return self._submit(lambda file: file.settle(through=through, rejected=rejected))

    def lend(self) -> None:
        """Serves one scanner from now on; SpoolInUse while it serves another one."""
        with self._closing:
            if self._lent:
                raise SpoolInUse("another scanner uses the spool", reason="SPOOL_IN_USE")
            self._lent = True

    def give_back(self) -> None:
        """The scanner has ended."""
        self._lent = False

    def close(self) -> None:
        """Finishes what was asked for and gives the file up. A second call does nothing."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._operations.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _reserve(self, count: int) -> Future[int]:
        return self._submit(lambda file: file.reserve_event_ids(count))

    def _submit(self, act: Callable[[SpoolFile], _Result]) -> Future[_Result]:
        operation = _Operation(act)
        with self._closing:
            if self._closed:
                raise SpoolBroken("the spool is closed", reason="SPOOL_CLOSED")
            self._operations.put(operation)
        return operation.future

    # From here on: the spool's own thread.

    def _work(self) -> None:
        going_on = True
        while going_on:
            group, going_on = self._next_group()
            self._run_or_fail(group)
        self._file.close()

    def _next_group(self) -> tuple[list["_Operation[Any]"], bool]:
        """What waits, at least one; and whether more may come."""
        group: list[_Operation[Any]] = []
        operation = self._operations.get()
        while operation is not None:
            group.append(operation)
            if len(group) == _GROUP_OPERATIONS_MAX:
                return group, True
            try:
                operation = self._operations.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _run_or_fail(self, group: Sequence["_Operation[Any]"]) -> None:
        try:
            self._run(group)
        except sqlite3.Error as failure:
            error = spool_error(failure)
        except Exception as failure:
            # Whatever a damaged file leads to: those who asked wait to hear of it.
            error = SpoolBroken(f"the spool cannot be read: {failure!r}", reason="SPOOL_BROKEN")
        else:
            return
        alone = len(group) == 1
        if alone or not isinstance(error, SpoolFull):
            self._fail(group, error)
        elif self._rolled_back(group):
            # One of them found no room; what needs none, or gives some back, goes on.
            for operation in group:
                self._run_or_fail([operation])

    def _run(self, group: Sequence["_Operation[Any]"]) -> None:
        if self._broken is not None:
            self._fail(group, self._broken)
            return
        self._file.begin()
        for operation in group:
            operation.run(self._file)
        self._file.commit()
        for operation in group:
            operation.tell()

    def _fail(self, group: Sequence["_Operation[Any]"], error: SpoolError) -> None:
        if not isinstance(error, SpoolFull):
            self._broken = error
        if self._rolled_back(group):
            for operation in group:
                operation.future.set_exception(error)

    def _rolled_back(self, group: Sequence["_Operation[Any]"]) -> bool:
        """Whether everything is as before the group; else the spool is broken, and it is told."""
        try:
            self._file.roll_back()
        except sqlite3.Error as failure:
            self._broken = spool_error(failure)
            for operation in group:
                operation.future.set_exception(self._broken)
            return False
        return True


class _Operation(Generic[_Result]):
    """One thing asked of the file, and the future of who asked."""

    __slots__ = ("_act", "_outcome", "future")

    def __init__(self, act: Callable[[SpoolFile], _Result]) -> None:
        self._act = act
        self._outcome: Callable[[], None] | None = None
        self.future: Future[_Result] = Future()
        # Marked as running from the start, so that nobody can cancel what may be on disk already.
        self.future.set_running_or_notify_cancel()

    def run(self, file: SpoolFile) -> None:
        """Acts, and keeps the outcome back until the group is durable."""
        try:
            result = self._act(file)
        except SpoolError as refused:
            # Refused before the file was touched: the rest of the group goes on.
            self._outcome = partial(self.future.set_exception, refused)
        else:
            self._outcome = partial(self.future.set_result, result)

    def tell(self) -> None:
        """Tells the outcome."""
        assert self._outcome is not None, "an outcome is told after the operation has run"
        self._outcome()


class _EventIds:
    """Counters from blocks that are reserved on disk before the first of them is used."""

    def __init__(self, reserve: Callable[[int], Future[int]], *, count: int) -> None:
        self._reserve = reserve
        self._count = count
        self._taking = threading.Lock()
        self._next = self._end = 0
        self._coming = reserve(count)

    def take(self) -> int:
        with self._taking:
            if self._next == self._end:
                try:
                    self._next = self._coming.result()
                finally:
                    # The block after it, so that the disk is rarely waited for; or another try.
                    self._coming = self._reserve(self._count)
                self._end = self._next + self._count
            taken = self._next
            self._next += 1
            return taken
