"""The durable mark: how far a partition was acknowledged, in a file beside its log.

RocksDB opens silently with fewer rows when its log was damaged, truncated, deleted or rolled back.
The mark is what that is measured against. It is written after each flush and before anybody is
answered, so it is never behind an acknowledgement when only the process died; it is synced every
`mark_sync_interval_s`, so a power cut may leave it that much behind, never ahead.

    file = slot{2}, 512 bytes apart, written in turn
    slot = magic "trkd" · format u32 · position u64 · crc32 of the above u32      (big-endian)
"""

import os
import zlib
from pathlib import Path
from struct import Struct

from trackd.store.errors import StorageFailed

_SLOT = Struct(">4sIQ")
_CRC = Struct(">I")
_MAGIC = b"trkd"
_FORMAT = 1
_SLOTS = 2
_SLOT_DISTANCE = 512


class DurableMark:
    """The mark of one partition; open while the partition is."""

    def __init__(self, path: Path) -> None:
        """Opens the file, made if it is not there. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._turn = 0
        self._synced = True

    def read(self) -> int | None:
        """The greatest position of the slots that are whole; None if neither is."""
        return _position_in(os.pread(self._descriptor, _SLOTS * _SLOT_DISTANCE, 0))

    def write(self, position: int) -> None:
        """Notes that everything up to position is durable. Raises StorageFailed."""
        body = _SLOT.pack(_MAGIC, _FORMAT, position)
        data = body + _CRC.pack(zlib.crc32(body))
        try:
            os.pwrite(self._descriptor, data, self._turn * _SLOT_DISTANCE)
        except OSError as error:
            raise StorageFailed(f"durable mark: {error}") from error
        self._turn ^= 1
        self._synced = False

    def reset(self, position: int) -> None:
        """Notes position as the last one, in every slot and durably, whatever they held before.

        After an accepted loss it is behind what was there. Raises StorageFailed.
        """
        for _ in range(_SLOTS):
            self.write(position)
        self.sync()

    def sync(self) -> None:
        """Makes the mark itself durable, if it was written since. Blocks: call it from a thread."""
        if self._synced:
            return
        self._synced = True
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StorageFailed(f"durable mark: {error}") from error

    def close(self) -> None:
        """Syncs and closes the file."""
        self.sync()
        os.close(self._descriptor)


def read_mark(path: Path) -> int | None:
    """What the mark at path says, without making one; None if it is missing or damaged."""
    try:
        return _position_in(path.read_bytes())
    except FileNotFoundError:
        return None


def _position_in(data: bytes) -> int | None:
    positions = []
    for offset in range(0, _SLOTS * _SLOT_DISTANCE, _SLOT_DISTANCE):
        body = data[offset : offset + _SLOT.size]
        crc = data[offset + _SLOT.size : offset + _SLOT.size + _CRC.size]
        if len(body) == _SLOT.size and _CRC.pack(zlib.crc32(body)) == crc:
            magic, version, position = _SLOT.unpack(body)
            if (magic, version) == (_MAGIC, _FORMAT):
                positions.append(position)
    return max(positions, default=None)
