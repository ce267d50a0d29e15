"""A RocksDB directory that is read and left exactly as it is.

RocksDB's binding writes a file of its own beside those that it opens, for reading only as well. So
what it is given is another directory, of links to the files: one that takes no writes can be read,
and nobody leaves a file that the server's user may not touch.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trackd.store.errors import StorageFailed

# What the binding writes; it would go through the link.
_OF_THE_BINDING = "rocksdict-config.json"


@contextmanager
def links_to(partition: Path) -> Iterator[Path]:
    """A directory of links to the files of `partition`, in the system's temporary place.

    Gone with the block, when nobody may have it open any more. Raises StorageFailed.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix="trackd-")
    except OSError as error:
        raise StorageFailed(f"no place for temporary files (TMPDIR): {error}") from error
    with temporary as name:
        links = Path(name)
        try:
            for file in partition.absolute().iterdir():
                if file.name != _OF_THE_BINDING:
                    (links / file.name).symlink_to(file)
        except OSError as error:
            raise StorageFailed(f"{partition}: {error}") from error
        yield links
