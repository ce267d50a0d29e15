"""Who owns what: the values that a worker is started with. No I/O.

    partition p belongs to worker p mod workers

Addresses stay the same for the whole run of a supervisor: a worker that was started again listens
where it did before, so that nobody has to look for it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one worker is told of itself and of the others.

    addresses: HOST:PORT of each worker's own gRPC port, as the other workers call it.
    advertised: the same, as clients are told by GetTopology.
    public: HOST:PORT that all workers share.
    metrics: HOST:PORT of this worker's own metrics.
    token: what calls between workers carry; made for one run of the supervisor.
    lock: the descriptor of the data directory's lock, inherited from the supervisor.
    """

    worker: int
    addresses: tuple[str, ...]
    advertised: tuple[str, ...]
    public: str
    metrics: str
    token: str
    lock: int

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self.addresses)

    def owner(self, partition: int) -> int:
        """The worker that owns a partition."""
        return partition % self.workers

    @property
    def leader(self) -> int:
        """The worker that leads subscriptions and endpoints: their documents are in partition 0."""
        return self.owner(0)

    @property
    def leads(self) -> bool:
        """Whether this worker does."""
        return self.worker == self.leader

    def own(self, partition_count: int) -> list[int]:
        """The partitions of this worker, in order."""
        return [number for number in range(partition_count) if self.owner(number) == self.worker]

    def encode(self, settings: Mapping[str, Any]) -> bytes:
        """One line, for the worker's `decode`. settings: as JSON has them."""
        return json.dumps({"assignment": asdict(self), "settings": settings}).encode() + b"\n"


def decode(line: bytes) -> tuple[Assignment, dict[str, Any]]:
    """The assignment and the settings in a line of `encode`."""
    told = json.loads(line)
    fields = told["assignment"]
    for name in ("addresses", "advertised"):
        fields[name] = tuple(fields[name])
    return Assignment(**fields), told["settings"]


def worker_count(asked: int | None, *, cores: int, partition_count: int) -> int:
    """How many workers serve: as many as asked, or one per core but one; at most one a partition.

    One core is left to flushes, compactions and whatever else the machine does: on 2 cores two
    workers take in more for a while, and answer late (docs/ARCHITECTURE.md, Decisions).
    """
    return max(1, min(asked or cores - 1, partition_count))
