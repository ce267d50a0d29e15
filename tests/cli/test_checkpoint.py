"""A checkpoint is gone on from only where that loses nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trackd.cli.files import checkpoint as checkpoints
from trackd.cli.files.checkpoint import Checkpoint, Counts, Mismatch, Sent
from trackd.cli.files.records import Place

CONTENT = b"0123456789\n" * 20_000
MIDDLE = len(CONTENT) // 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to send."""
    path = tmp_path / "scans.jsonl"
    path.write_bytes(CONTENT)
    return path


def halfway(file: Path) -> Checkpoint:
    """Where a run was that sent half of the file."""
    now = checkpoints.fingerprint(file, mapping=None)
    counts = Counts(accepted=9_000, duplicates=500, rejected=500)
    return Checkpoint(now, "data-set", Place(MIDDLE, 10_000), counts, rejected_bytes=99)


def keep_halfway(file: Path, *, compressed: bool = False) -> Checkpoint:
    """The same, kept beside the file."""
    there = halfway(file)
    there = replace(there, sent_sha256=Sent(file, compressed=compressed).sha256(there))
    checkpoints.save(there, checkpoints.checkpoint_path(file, state=None))
    return there


def fits(file: Path, *, data_set_id: str = "data-set") -> str:
    """Why the file cannot be gone on with; empty if it can."""
    answer = checkpoints.fits(
        halfway_kept(file),
        now=checkpoints.fingerprint(file, mapping=None),
        data_set_id=data_set_id,
        sent=Sent(file, compressed=False),
    )
    return answer.why if isinstance(answer, Mismatch) else ""


def halfway_kept(file: Path) -> Checkpoint:
    """The checkpoint that was kept beside the file."""
    kept = checkpoints.load(checkpoints.checkpoint_path(file, state=None))
    assert isinstance(kept, Checkpoint)
    return kept


def test_what_was_kept_is_read_back(file: Path) -> None:
    """Every field, exactly."""
    path = checkpoints.checkpoint_path(file, state=None)
    assert checkpoints.load(path) is None
    kept = keep_halfway(file)
    assert checkpoints.load(path) == kept
    assert fits(file) == ""


@pytest.mark.parametrize(
    ("change", "compressed", "why"),
    [
        (lambda file: file.write_bytes(CONTENT + b"more\n"), False, ""),
        (lambda file: file.write_bytes(CONTENT + b"more\n"), True, ""),
        (lambda file: file.write_bytes(CONTENT[: MIDDLE + 5] + b"x"), False, ""),
        (lambda file: file.write_bytes(CONTENT[: MIDDLE + 5] + b"x"), True, "changed"),
        (lambda file: file.write_bytes(CONTENT[: MIDDLE - 1]), False, "changed"),
        (lambda file: file.write_bytes(b"x" + CONTENT[1:]), False, "changed"),
        (
            lambda file: file.write_bytes(CONTENT[:90_000] + b"x" + CONTENT[90_001:]),
            False,
            "changed",
        ),
        (lambda file: file.write_bytes(CONTENT[:90_000] + CONTENT[90_001:]), False, "changed"),
        (lambda file: file.write_bytes(CONTENT[:-1] + b"x"), True, "changed"),
        (lambda file: file.write_bytes(b""), False, "changed"),
        (lambda file: file.unlink(), False, "changed"),
    ],
)
def test_a_file_may_have_grown_but_not_changed(
    file: Path, change: Callable[[Path], object], compressed: bool, why: str
) -> None:
    """What was sent before must still be what the file begins with, to the last byte of it."""
    kept = keep_halfway(file, compressed=compressed)
    sent = Sent(file, compressed=compressed)
    change(file)
    found = checkpoints.fits(kept, now=kept.fingerprint, data_set_id="data-set", sent=sent)
    assert isinstance(found, Mismatch) == bool(why)
    assert not isinstance(found, Mismatch) or why in found.why


def test_another_data_set_starts_from_the_beginning(file: Path) -> None:
    """A server that was set up anew has nothing of what was sent before."""
    keep_halfway(file)
    assert "another data set" in fits(file, data_set_id="other")


def test_another_mapping_starts_from_the_beginning(file: Path, tmp_path: Path) -> None:
    """Rows mean something else then."""
    mapping = tmp_path / "mapping.toml"
    mapping.write_text("a = 1")
    before = checkpoints.fingerprint(file, mapping=mapping)
    mapping.write_text("a = 2")
    kept = replace(halfway(file), fingerprint=before)
    now = checkpoints.fingerprint(file, mapping=mapping)
    sent = Sent(file, compressed=False)
    answer = checkpoints.fits(kept, now=now, data_set_id="data-set", sent=sent)
    assert isinstance(answer, Mismatch)
    assert "mapping" in answer.why


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 99}', b"[]", b"\x00"])
def test_a_damaged_checkpoint_is_no_checkpoint(file: Path, content: bytes) -> None:
    """It costs a repeat of the file, never a part of it."""
    path = checkpoints.checkpoint_path(file, state=None)
    path.write_bytes(content)
    assert isinstance(checkpoints.load(path), Mismatch)


def test_files_of_one_name_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    """In one directory of states, `a/scans` and `b/scans` are two."""
    state = tmp_path / "state"
    paths = {checkpoints.checkpoint_path(tmp_path / part / "s", state=state) for part in "ab"}
    assert len(paths) == 2
    assert {path.parent for path in paths} == {state}
