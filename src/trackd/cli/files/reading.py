"""A file or standard input as lines of bytes, from any place on, plain or gzip.

Lines are counted and their ends are known as byte offsets of the uncompressed text, which is what
makes going on after an interruption exact. Knows nothing of what a line holds.
"""

import gzip
import io
import os
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from trackd.cli.files.records import START, Place

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A line longer than this cannot be a scan: the server takes 32 KiB as protobuf.
LINE_BYTES_MAX = 256 * 1024

_GZIP_MAGIC = b"\x1f\x8b"
_POLL_S = 0.1
_PIPE_BUFFER_BYTES = 64 * 1024


class Pipe(io.RawIOBase):
    """A pipe, or standard input, that can be told to stop, and says when it is about to wait.

    A plain read would keep a thread inside the kernel until more comes: Ctrl-C could not end the
    program, and what was read so far would not be sent while a slow writer thinks.
    """

    def __init__(self, fd: int, *, stopped: threading.Event, on_wait: Callable[[], None]) -> None:
        """Takes `fd` over. `on_wait` is called before each wait for more input."""
        super().__init__()
        self._fd = fd
        self._stopped = stopped
        self._on_wait = on_wait

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """What is there, waiting for at least a byte; 0 at the end and once stopped."""
        view = memoryview(buffer)
        waiting = False
        while not self._stopped.is_set():
            ready, _, _ = select.select([self._fd], [], [], _POLL_S if waiting else 0)
            if ready:
                data = os.read(self._fd, len(view))
                view[: len(data)] = data
                return len(data)
            if not waiting:
                waiting = True
                self._on_wait()
        return 0

    def close(self) -> None:
        """Closes the descriptor."""
        if not self.closed:
            os.close(self._fd)
        super().close()


class Lines:
    """The lines of a source, with their place.

    Iterating gives each line with its line end. After each, `place` is behind it.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        """Reads `raw` from its beginning."""
        self._raw = raw
        self.place = START
        self.compressed = _is_gzip(raw)
        self._text: IO[bytes] | gzip.GzipFile = (
            gzip.GzipFile(fileobj=raw, mode="rb") if self.compressed else raw
        )

    def __iter__(self) -> Iterator[bytes]:
        """Each line; of one that is too long, the first LINE_BYTES_MAX + 1 bytes."""
        while line := self._text.readline(LINE_BYTES_MAX + 1):
            length = len(line)
            if length > LINE_BYTES_MAX:
                length += self._skip_line(line)
            self.place = Place(self.place.offset + length, self.place.line + 1)
            yield line

    def go_to(self, place: Place) -> None:
        """Goes on from another place, which must be the end of a line."""
        self._text.seek(place.offset)
        self.place = place

    def bytes_read(self) -> int:
        """How much of the file itself was read, for progress: of gzip, the compressed bytes."""
        if not self.compressed:
            return self.place.offset
        return self._raw.tell() if self._raw.seekable() else 0

    def _skip_line(self, begin: bytes) -> int:
        """Reads on to the end of a line; how many bytes that took."""
        skipped = 0
        part = begin
        while part and not part.endswith(b"\n"):
            part = self._text.readline(LINE_BYTES_MAX)
            skipped += len(part)
        return skipped


def open_source(
    path: Path | None, *, stopped: threading.Event, on_wait: Callable[[], None]
) -> IO[bytes]:
    """A file, a pipe, or standard input where `path` is None, for Lines; may raise OSError."""
    if path is not None and path.is_file():
        return path.open("rb")
    fd = os.dup(0) if path is None else os.open(path, os.O_RDONLY)
    return io.BufferedReader(Pipe(fd, stopped=stopped, on_wait=on_wait), _PIPE_BUFFER_BYTES)


def _is_gzip(raw: IO[bytes]) -> bool:
    # A peek takes nothing, so it works on a pipe, too.
    assert isinstance(raw, io.BufferedReader)
    return raw.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)] == _GZIP_MAGIC
