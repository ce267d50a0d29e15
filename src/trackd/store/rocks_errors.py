"""Which error of RocksDB is which of ours. Knows its texts, and not rocksdict."""

from trackd.store.errors import DataDamaged, DirectoryInUse, StorageFailed, StoreError, WriteStalled


def translated(error: Exception) -> StoreError:
    """Rocksdict raises plain Exceptions; their text begins with RocksDB's kind of error."""
    text = str(error)
    if "Write stall" in text or text.startswith("Result incomplete"):
        return WriteStalled(text)
    if "LOCK" in text and ("lock" in text or "Resource temporarily" in text):
        return DirectoryInUse(text)
    if text.startswith(("Corruption", "IO error: No such file")):
        return DataDamaged(text)
    return StorageFailed(text)
