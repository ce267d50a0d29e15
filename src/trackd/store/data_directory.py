"""The data directory: what stands around the partitions.

    DIR/lock                  held by the one process that has the directory open, and by the
                              workers that inherited it: free once all of them are gone
    DIR/manifest.json         which data set this is, how many partitions it has; written once
    DIR/partition-0000/       RocksDB
    DIR/partition-0000.mark   the durable mark of that partition (mark.py)

The number of partitions is part of where every waybill lives, so it never changes. The data set id
is part of every position, so that a position is never taken for one of other data.
"""

import fcntl
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from trackd.store.errors import DataBehind, DirectoryInUse, StorageFailed, WrongData
from trackd.store.mark import read_mark

# 2: what a crash left may be in the log alone, where versions that know only 1 do not look for it.
FORMAT_VERSION = 2
_READABLE = (1, 2)
PARTITIONS_MAX = 256
# How long a directory may be in use before a start gives up: a process that was killed is a moment
# from being gone, and a restart that follows at once must not be told that the data is in use.
_LOCK_WAIT_S = 1.0
_LOCK_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a data directory is."""

    format_version: int
    data_set_id: str
    partition_count: int


class DataDirectory:
    """A data directory that this process has to itself until `close`."""

    def __init__(
        self,
        path: Path,
        partition_count: int | None,
        default_count: int,
        *,
        inherited_lock: int | None = None,
        read_only: bool = False,
    ) -> None:
        """Opens or makes the directory.

        partition_count: what a new directory gets, and what an old one must have; None takes what
        is there, or default_count, PARTITIONS_MAX at most. inherited_lock: the lock_descriptor of
        the process that started this one. read_only: of one that is there, to look at; nothing is
        written. Raises DirectoryInUse, WrongData or StorageFailed.
        """
        self.path = path
        if inherited_lock is None:
            inherited_lock = _taken(path, _lock_to_look(path) if read_only else _lock_to_keep(path))
        self._lock = inherited_lock
        try:
            wanted = partition_count or min(default_count, PARTITIONS_MAX)
            self.manifest = self._read() or self._make(wanted)
            if partition_count not in {None, self.manifest.partition_count}:
                raise WrongData(
                    f"{path} has {self.manifest.partition_count} partitions, not {partition_count};"
                    " the number is fixed when the data is made"
                )
        except BaseException:
            self.close()
            raise

    def _read(self) -> Manifest | None:
        file = self.path / "manifest.json"
        try:
            fields = json.loads(file.read_bytes())
        except FileNotFoundError:
            if any(self.path.glob("partition-*")):
                raise WrongData(f"{file} is missing, but there are partitions") from None
            return None
        except (OSError, ValueError) as error:
            raise WrongData(f"{file} cannot be read: {error}") from error
        if not isinstance(fields, dict):
            raise WrongData(f"{file} is not a manifest")
        if fields.get("format_version") not in _READABLE:
            raise WrongData(
                f"{self.path} has format {fields.get('format_version')}; "
                f"this version of trackd reads formats up to {FORMAT_VERSION}"
            )
        try:
            manifest = Manifest(**fields)
        except TypeError as error:
            raise WrongData(f"{file} is not a manifest: {error}") from error
        count, data_set_id = fields["partition_count"], fields["data_set_id"]
        if not (isinstance(count, int) and isinstance(data_set_id, str) and count > 0):
            raise WrongData(f"{file} is not a manifest: {fields}")
        return manifest

    def _make(self, partition_count: int) -> Manifest:
        if not 1 <= partition_count <= PARTITIONS_MAX:
            raise WrongData(f"partitions = {partition_count}: must be 1-{PARTITIONS_MAX}")
        return self._write(partition_count, secrets.token_hex(8))

    def _write(self, partition_count: int, data_set_id: str) -> Manifest:
        manifest = Manifest(FORMAT_VERSION, data_set_id, partition_count)
        new = self.path / "manifest.json.new"
        try:
            with new.open("wb") as file:
                file.write(json.dumps(asdict(manifest), indent=2).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path / "manifest.json")
            sync_directory(self.path)
        except OSError as error:
            raise StorageFailed(f"{new}: {error}") from error
        return manifest

    def become_another_data_set(self) -> None:
        """Gives the data a new identity, after a loss was accepted: older positions are void."""
        self.manifest = self._write(self.manifest.partition_count, secrets.token_hex(8))

    def refuse_if_incomplete(self) -> None:
        """Raises WrongData or DataBehind if there are not the partitions that the manifest names.

        Its number says where every waybill lives: with another one, what was acknowledged would be
        looked for in the wrong place. Nothing is acknowledged before all partitions are there.
        """
        count = self.manifest.partition_count
        wanted = [self.partition_path(number) for number in range(count)]
        more = sorted({path for path in self.path.glob("partition-*") if path.is_dir()} - {*wanted})
        if more:
            raise WrongData(
                f"{more[0]} is there, but manifest.json names {count} partitions: one of the two is"
                " not what it was"
            )
        missing = [
            path
            for number, path in enumerate(wanted)
            # Where the mark is left, it says what is lost.
            if not path.exists() and not self.mark_path(number).exists()
        ]
        for number in range(count):
            if missing and (acknowledged := read_mark(self.mark_path(number))):
                raise DataBehind(
                    f"{missing[0]} is missing, but partition {number} was acknowledged up to"
                    f" position {acknowledged}: nobody knows what the missing one held"
                )

    def begin(self, *, accept_data_loss: bool) -> None:
        """What a server does once before it opens partitions; not for whoever only looks.

        Leaves a directory for every partition, so that one that is missing later was taken away,
        and a format that older versions refuse, before anything is written that they misread.
        accept_data_loss: what is missing is made anew, and the data is another data set. Raises as
        `refuse_if_incomplete`, or StorageFailed.
        """
        if accept_data_loss:
            self.become_another_data_set()
        else:
            self.refuse_if_incomplete()
            if self.manifest.format_version != FORMAT_VERSION:
                count, data_set_id = self.manifest.partition_count, self.manifest.data_set_id
                self.manifest = self._write(count, data_set_id)
        try:
            for number in range(self.manifest.partition_count):
                self.partition_path(number).mkdir(mode=0o700, exist_ok=True)
            sync_directory(self.path)
        except OSError as error:
            raise StorageFailed(f"{self.path}: {error.strerror}") from error

    def partition_path(self, partition: int) -> Path:
        """Where the RocksDB files of a partition are."""
        return self.path / f"partition-{partition:04}"

    def mark_path(self, partition: int) -> Path:
        """Where the durable mark of a partition is."""
        return self.path / f"partition-{partition:04}.mark"

    @property
    def lock_descriptor(self) -> int:
        """What a process that is started by this one inherits, to hold the lock with it."""
        return self._lock

    def close(self) -> None:
        """Lets another process have the directory, once nobody has the lock any more."""
        os.close(self._lock)


def _lock_to_keep(path: Path) -> int:
    """The descriptor of the directory's lock; both are made if they are not there."""
    try:
        new = [one for one in (path, *path.parents) if not one.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Else a power cut may take the whole directory, and the next start would make another.
        for one in new:
            sync_directory(one.parent)
        return os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error


def _lock_to_look(path: Path) -> int:
    """The descriptor of the lock, as it is; of the directory, if no server ever made one in it."""
    try:
        with suppress(FileNotFoundError):
            return os.open(path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageFailed(f"{path}: {error.strerror}") from error


def _taken(path: Path, lock: int) -> int:
    """The lock, which this process has from now on. Raises DirectoryInUse."""
    # A process that was killed holds its lock until the last of its threads is gone.
    gives_up_at = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > gives_up_at:
                os.close(lock)
                raise DirectoryInUse(f"{path} is in use by another process") from error
            time.sleep(_LOCK_POLL_S)
        else:
            return lock


def sync_directory(path: Path) -> None:
    """Makes the entries of a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
