"""A file or standard input as lines of bytes, from any place on, plain or gzip.

Lines are counted and their ends are known as byte offsets of the uncompressed text, which is what
makes going on after an interruption exact. Knows nothing of what a line holds.
"""

import codecs
import errno
import gzip
import io
import os
import select
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from trackd.cli.files.records import START, Place

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A line longer than this cannot be a scan: the server takes 32 KiB as protobuf.
LINE_BYTES_MAX = 256 * 1024

_GZIP_MAGIC = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
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

    Iterating gives each line with its line end. After each, `place` is behind it. OSError where a
    compressed file is damaged, or ends too early.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        """Reads `raw` from its beginning. OSError for a text that has no lines of bytes."""
        assert isinstance(raw, io.BufferedReader)
        self._raw = raw
        self.place = START
        # A peek takes nothing, so it works on a pipe, too.
        begin = raw.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)]
        self.compressed = begin == _GZIP_MAGIC
        self._text: io.BufferedReader | gzip.GzipFile = (
            gzip.GzipFile(fileobj=raw, mode="rb") if self.compressed else raw
        )
        if begin in _UTF_16:
            raise OSError(errno.EILSEQ, "is UTF-16; convert it to UTF-8 first")

    def __iter__(self) -> Iterator[bytes]:
        """Each line; of one that is too long, the first LINE_BYTES_MAX + 1 bytes."""
        while line := self._read_line(LINE_BYTES_MAX + 1):
            length = len(line)
            if length > LINE_BYTES_MAX:
                length += self._skip_line(line)
            self.place = Place(self.place.offset + length, self.place.line + 1)
            yield line

    def go_to(self, place: Place) -> None:
        """Goes on from another place, which must be the end of a line."""
        with _damage_told():
            self._text.seek(place.offset)
        self.place = place

    def _read_line(self, bytes_max: int) -> bytes:
        if not self.compressed:
            return self._text.readline(bytes_max)
        with _damage_told():
            return self._text.readline(bytes_max)

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
            part = self._read_line(LINE_BYTES_MAX)
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


@contextmanager
def _damage_told() -> Iterator[None]:
    """Python has a class of its own for each kind of damage to a gzip file."""
    try:
        yield
    except (zlib.error, EOFError) as error:
        raise gzip.BadGzipFile(str(error)) from error
