"""What a check of a data directory may find, and how far it says that it is."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Self


class Kind(StrEnum):
    """What kind of rule a finding breaks."""

    DAMAGED = "damaged"  # bytes that cannot be read
    FOREIGN = "foreign"  # a partition, or a row in it, that belongs elsewhere
    REPEAT = "repeat"  # no event id twice in a waybill
    GAP = "gap"  # positions follow each other
    BEHIND = "behind"  # nothing that was acknowledged is missing
    MISMATCH = "mismatch"  # log and events table hold the same events
    STATUS = "status"  # a status is the fold of its timeline
    DERIVED = "derived"  # what else is kept of a waybill follows from its events and the log


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. where: a waybill, positions, a table; message: a sentence."""

    partition: int
    kind: Kind
    where: str
    message: str

    def seen_through(self, links: Path, files: Path) -> Self:
        """The same of files that were read through links: told by where they are."""
        return replace(self, message=self.message.replace(str(links), str(files)))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it got: `done` of about `total` rows of one of the steps "log" and "events"."""

    partition: int
    partition_count: int
    step: str
    done: int
    total: int
