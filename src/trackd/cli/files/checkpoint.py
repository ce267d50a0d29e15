"""How far a file was sent, kept beside it, so that an interrupted run can go on.

A checkpoint holds for one file, one mapping and one data set: when one of them has changed, the
file is sent from its beginning, which does no harm, since what is there counts as a repeat.
Knows neither server nor event.
"""

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from trackd.cli.files.records import START, Place

_VERSION = 2
_PART_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Counts:
    """What has become of the events and lines so far."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0

    @property
    def events(self) -> int:
        """How many were answered for."""
        return self.accepted + self.duplicates + self.rejected

    def plus(self, *, accepted: int = 0, duplicates: int = 0, rejected: int = 0) -> "Counts":
        """These and more."""
        return Counts(
            self.accepted + accepted, self.duplicates + duplicates, self.rejected + rejected
        )


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A file as a run found it, and what reads it."""

    size: int
    mapping_sha256: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything before `place` is acknowledged; the rejects file holds `rejected_bytes` for it.

    sent_sha256: of everything before `place`; of a compressed file, of all that there was of it.
    """

    fingerprint: Fingerprint
    data_set_id: str
    place: Place
    counts: Counts
    rejected_bytes: int
    sent_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a checkpoint that is there is not gone on from."""

    why: str


def fingerprint(path: Path, *, mapping: Path | None) -> Fingerprint:
    """The fingerprint of a file as it is now."""
    mapped = hashlib.sha256(mapping.read_bytes()).hexdigest() if mapping else ""
    return Fingerprint(path.stat().st_size, mapped)


class Sent:
    """The hash of what was sent of a file, which goes on as the place in it does.

    A file may grow between two runs. Where what was sent became something else, a corrected line
    say, the place may be in the midst of a line, and the correction would not be sent.
    """

    def __init__(self, path: Path, *, compressed: bool) -> None:
        """Reads nothing yet."""
        self._path = path
        self._compressed = compressed
        self._hash = hashlib.sha256()
        self._offset = 0

    def sha256(self, at: Checkpoint) -> str:
        """Of what was sent then. Reads what is new of it once more."""
        upto = at.fingerprint.size if self._compressed else at.place.offset
        if upto < self._offset:
            self._hash, self._offset = hashlib.sha256(), 0
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while part := file.read(min(_PART_BYTES, upto - self._offset)):
                    self._hash.update(part)
                    self._offset += len(part)
        except OSError:
            return ""  # it was taken away meanwhile, and no file is the one that it was
        return self._hash.hexdigest()


def checkpoint_path(path: Path, *, state: Path | None) -> Path:
    """Where the checkpoint of a file is: beside it, or in `state` under a name made of its path."""
    if state is None:
        return path.with_name(path.name + ".checkpoint")
    # Files of the same name in different directories must not share one.
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    return state / f"{path.name}.{digest}.checkpoint"


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Replaces the checkpoint at `path`, wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(orjson.dumps({"version": _VERSION, **asdict(checkpoint)}))
    new.replace(path)


def load(path: Path) -> Checkpoint | Mismatch | None:
    """The checkpoint at `path`; None when there is none, Mismatch when it cannot be read."""
    try:
        kept = orjson.loads(path.read_bytes())
        if kept["version"] != _VERSION:
            return Mismatch("it was written by another version of trackd")
        return Checkpoint(
            fingerprint=Fingerprint(**kept["fingerprint"]),
            data_set_id=kept["data_set_id"],
            place=Place(**kept["place"]),
            counts=Counts(**kept["counts"]),
            rejected_bytes=kept["rejected_bytes"],
            sent_sha256=kept["sent_sha256"],
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Mismatch("it is damaged")


def fits(
    checkpoint: Checkpoint,
    *,
    now: Fingerprint,
    data_set_id: str,
    sent: Sent,
) -> Checkpoint | Mismatch:
    """The checkpoint if the file can be gone on with from there, else why not."""
    if checkpoint.data_set_id != data_set_id:
        return Mismatch("it is of another data set than the server's")
    if checkpoint.fingerprint.mapping_sha256 != now.mapping_sha256:
        return Mismatch("the mapping has changed")
    if sent.sha256(checkpoint) != checkpoint.sent_sha256:
        return Mismatch("the file has changed")
    return checkpoint


def first(now: Fingerprint, *, data_set_id: str) -> Checkpoint:
    """Where a file that was never sent stands."""
    return Checkpoint(now, data_set_id, START, Counts(), rejected_bytes=0)
