"""Small named documents: settings that callers make, kept beside the data.

There is one set of them in a data directory, in partition 0. All of them are in memory, so a read
costs nothing; a write is durable before it is told. What a document holds is its owner's business.
"""

from collections.abc import Iterator, Mapping

from trackd.store.committer import Committer
from trackd.store.engine_contract import Engine
from trackd.store.errors import SpaceLow
from trackd.store.keys import Table, document_key, document_of


class Documents:
    """The documents of a data directory. Only the thread of the committer's event loop may call."""

    def __init__(self, engine: Engine, committer: Committer) -> None:
        """Reads them all. Raises DataDamaged."""
        self._committer = committer
        self._kinds: dict[str, dict[str, bytes]] = {}
        for key, value in engine.scan_all(Table.DOCUMENTS):
            kind, name = document_of(key)
            self._kinds.setdefault(kind, {})[name] = value

    def get(self, kind: str, name: str) -> bytes | None:
        """A document; None if there is none of that name."""
        return self._kinds.get(kind, {}).get(name)

    def list(self, kind: str) -> Iterator[tuple[str, bytes]]:
        """Every document of a kind, by name."""
        yield from sorted(self._kinds.get(kind, {}).items())

    async def put(self, kind: str, changes: Mapping[str, bytes | None]) -> None:
        """Puts documents of a kind, or deletes those of value None: all of them or none.

        Durable when it returns, and only then seen by others. Two callers that change the same
        document at a time have to agree between themselves. Raises StorageFailed; SpaceLow, unless
        all it does is to delete.
        """
        if self._committer.space_is_low and any(value is not None for value in changes.values()):
            raise SpaceLow("the disk is nearly full")
        rows = [(document_key(kind, name), value) for name, value in changes.items()]
        await self._committer.put_aside([(Table.DOCUMENTS, rows)])
        documents = self._kinds.setdefault(kind, {})
        for name, value in changes.items():
            if value is None:
                documents.pop(name, None)
            else:
                documents[name] = value
