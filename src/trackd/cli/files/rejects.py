"""The list of what was not stored: JSON lines with line number, reason and the text itself.

Made when there is something to put into it. Each refusal is on disk before a checkpoint counts it.
"""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson

from trackd.cli.files.records import Fault, Record


class Rejects:
    """Refusals in the order in which they became known; one writer."""

    def __init__(self, path: Path, *, keep_bytes: int) -> None:
        """Goes on behind the first `keep_bytes`; what was written beyond them is said anew.

        A list that was moved away, or cut, is gone on with where it ends. What is no file,
        /dev/null say, is left as it is and written to.
        """
        self.path = path
        self.bytes = 0
        self._file: IO[bytes] | None = None
        if not path.is_file():
            return
        keep_bytes = self.bytes = min(keep_bytes, path.stat().st_size)
        if keep_bytes == 0 and not path.is_symlink():
            path.unlink()
        else:
            with path.open("rb+") as file:
                file.truncate(keep_bytes)

    def add(self, record: Record, fault: Fault, *, event_id: str) -> None:
        """Writes a fault of a record; `event_id` is empty where there was no event."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        entry = {
            "line": record.line,
            "reason": fault.reason,
            "field": fault.field,
            "message": fault.message,
            "event_id": event_id,
            "input": record.text,
        }
        self.bytes += self._file.write(orjson.dumps(entry) + b"\n")

    def flush(self) -> None:
        """Hands what was added to the system."""
        if self._file is not None:
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            # What could not be flushed was told by then.
            with suppress(OSError):
                self._file.close()
