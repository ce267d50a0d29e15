"""Room on the disk: how much is free, and how much of it is kept back.

RocksDB does not recover from a full disk without a restart, so writes are refused before it is
full.
"""

import os
from pathlib import Path


class SpaceGuard:
    """Whether the disk has too little room for writes; set by whoever looks at the disk."""

    def __init__(self) -> None:
        self.low = False


RESERVE_BYTES_MAX = 1 << 30
RESERVE_SHARE = 4


def free_bytes(path: Path) -> int:
    """Free bytes on the file system of path, for this user."""
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize


def disk_reserve_bytes(path: Path) -> int:
    """What is kept free by default: the smaller of 1 GiB and a quarter of the file system."""
    figures = os.statvfs(path)
    return min(RESERVE_BYTES_MAX, figures.f_blocks * figures.f_frsize // RESERVE_SHARE)
