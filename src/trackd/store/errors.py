"""What can go wrong in the store, each error named for the caller's next move."""


class StoreError(Exception):
    """The base of the store's errors; `str` says what happened."""


class WriteStalled(StoreError):
    """The engine's background work is behind: nothing was written; wait and write it again."""


class StorageFailed(StoreError):
    """A write or a flush failed: nothing more may be acknowledged; stop the process."""


class SpaceLow(StoreError):
    """The disk is nearly full: nothing of this was written; send it again when there is room."""


class DataDamaged(StoreError):
    """Stored bytes cannot be read back: answer DATA_LOSS, never a shorter result."""


class DirectoryInUse(StoreError):
    """Another process has the data directory open."""


class DataBehind(StoreError):
    """The data holds less than was acknowledged: refuse to start."""


class WrongData(StoreError):
    """The directory is not what it was taken for: another data set, partition count or format."""


def as_storage_failure(error: BaseException) -> StorageFailed:
    """Whatever ended a write or a flush."""
    return error if isinstance(error, StorageFailed) else StorageFailed(repr(error))
