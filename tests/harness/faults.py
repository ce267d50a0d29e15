"""Fault tools: storage that fails by rule, a disk whose power can be cut, a disk that gets full.

They work on an ordinary kernel. The disks need root (loop and tmpfs mounts); where they cannot be
had a test fails, unless TRACKD_NO_LOOP_MOUNTS=1 says that this machine is known to have none. Knows
nothing of trackd.
"""

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_SOURCE = Path(__file__).with_name("preload") / "storage_faults.c"
NO_MOUNTS_VARIABLE = "TRACKD_NO_LOOP_MOUNTS"

# ioctl of ext4 and others, since Linux 3.10: the file system is gone at this instant.
_FS_IOC_SHUTDOWN = 0x8004587D
# Nothing is flushed first, not even the journal: what a power cut leaves.
_SHUTDOWN_WITHOUT_LOG_FLUSH = 2


class StorageFaults:
    """Storage calls of a process that fail, lie or are slow; the rules are in the C file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._rule = folder / "storage-faults"
        self.clear()

    @property
    def env(self) -> Mapping[str, str]:
        """What the process needs in its environment to be under these rules."""
        return {"LD_PRELOAD": str(compiled_library()), "STORAGE_FAULTS": str(self._rule)}

    def arm(self, call: str, suffix: str, action: str, *, nth: int = 0, ms: int = 0) -> None:
        """Sets the rule, from now on, counting from now on: see the C file."""
        new = self._rule.with_suffix(".new")
        new.write_text(f"{call} {suffix} {action} {nth} {ms}\n")
        new.replace(self._rule)

    def clear(self) -> None:
        """No call fails from now on."""
        self._rule.write_text("")


def compiled_library() -> Path:
    """The shared library, compiled when it is not there yet."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"trackd-preload-{os.getuid()}"
    library = cache / f"{_SOURCE.stem}-{digest}.so"
    if library.exists():
        return library
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.fail("the storage faults are a C file: gcc is missing (apt-get install gcc)")
    cache.mkdir(mode=0o700, exist_ok=True)
    new = library.with_suffix(f".{os.getpid()}")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(new), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    new.replace(library)
    return library


class _Mount:
    """A file system of its own, mounted for as long as the block runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mounted"
        self._mounted = False

    def _mount(self, *arguments: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        command = ["mount", *arguments, str(self.path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            _cannot_mount(done.stderr.strip())
        self._mounted = True

    def unmount(self) -> None:
        """Nothing may be open on it."""
        subprocess.run(["umount", str(self.path)], check=True)
        self._mounted = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._mounted:
            # Lazily: a test that failed may have left a process on it.
            subprocess.run(["umount", "--lazy", str(self.path)], check=False)


class LoopDisk(_Mount):
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        super().__init__(folder)
        self._image = folder / "disk.img"
        self._size_bytes = size_bytes

    def __enter__(self) -> Self:
        maker = shutil.which("mkfs.ext4") or "/sbin/mkfs.ext4"
        if not Path(maker).exists():
            _cannot_mount("mkfs.ext4 is missing (apt-get install e2fsprogs)")
        self._image.parent.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(self._size_bytes)
        subprocess.run([maker, "-q", "-F", str(self._image)], check=True)
        self.mount()
        return self

    def mount(self) -> None:
        """What a start after the cut does: the journal is replayed."""
        self._mount("-o", "loop", str(self._image))

    def cut_power(self) -> None:
        """From this instant nothing more reaches the disk, and every call fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            how = struct.pack("I", _SHUTDOWN_WITHOUT_LOG_FLUSH)
            fcntl.ioctl(descriptor, _FS_IOC_SHUTDOWN, how)
        finally:
            os.close(descriptor)


class SmallDisk(_Mount):
    """A file system in memory, as small as it is told to be."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        super().__init__(folder)
        self._size_bytes = size_bytes

    def __enter__(self) -> Self:
        self._mount("-t", "tmpfs", "-o", f"size={self._size_bytes}", "tmpfs")
        return self

    def resize(self, size_bytes: int) -> None:
        """Makes it larger or smaller, under whoever uses it."""
        self._mount("-o", f"remount,size={size_bytes}")

    @property
    def free_bytes(self) -> int:
        """What is left for everybody."""
        return shutil.disk_usage(self.path).free

    def fill(self, leave_bytes: int) -> Path:
        """Somebody else's file takes all but leave_bytes; returns it."""
        ballast = self.path / "ballast"
        with ballast.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), self.free_bytes - leave_bytes)
        return ballast


class ReadOnlyView(_Mount):
    """A directory as it is seen through a mount that takes no writes."""

    def __init__(self, directory: Path, folder: Path) -> None:
        super().__init__(folder)
        self._directory = directory

    def __enter__(self) -> Self:
        self._mount("--bind", str(self._directory))
        self._mount("-o", "remount,bind,ro")
        return self


def _cannot_mount(why: str) -> None:
    if os.environ.get(NO_MOUNTS_VARIABLE) == "1":
        pytest.skip(f"{NO_MOUNTS_VARIABLE}=1: {why}")
    pytest.fail(
        f"this test mounts a disk of its own, which cannot be done here: {why}\n"
        f"Run it as root; where that is impossible {NO_MOUNTS_VARIABLE}=1 leaves it out."
    )
