"""The data directory: one process, one identity, one number of partitions, for ever."""

import json
from pathlib import Path

import pytest

from trackd.store.data_directory import PARTITIONS_MAX, DataDirectory, Manifest
from trackd.store.errors import DataBehind, DirectoryInUse, StorageFailed, WrongData
from trackd.store.mark import DurableMark


def opened(path: Path, partition_count: int | None = None, default_count: int = 2) -> Manifest:
    """Opens and closes the directory; what it says."""
    directory = DataDirectory(path, partition_count, default_count)
    try:
        return directory.manifest
    finally:
        directory.close()


def test_a_new_directory_is_made_with_the_partitions_asked_for(tmp_path: Path) -> None:
    """Or with the default; parents are made too, and only the owner may look inside."""
    assert opened(tmp_path / "a" / "b", 5).partition_count == 5
    assert opened(tmp_path / "c", None, 3).partition_count == 3
    assert opened(tmp_path / "d", None, 999).partition_count == PARTITIONS_MAX
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_every_directory_that_was_made_is_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not take one with everything in it: each is synced in its parent."""
    synced: list[Path] = []
    monkeypatch.setattr("trackd.store.data_directory.sync_directory", synced.append)
    opened(tmp_path / "a" / "b")
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)
    synced.clear()
    opened(tmp_path / "a" / "b")
    assert synced == []


def test_an_old_directory_keeps_what_it_is(tmp_path: Path) -> None:
    """Identity and number of partitions, whatever the default is by now."""
    first = opened(tmp_path, 3)
    assert opened(tmp_path, None, 8) == opened(tmp_path, 3, 8) == first


def test_two_directories_are_two_data_sets(tmp_path: Path) -> None:
    """A position of one is never taken for one of the other."""
    assert opened(tmp_path / "a").data_set_id != opened(tmp_path / "b").data_set_id


def test_the_number_of_partitions_cannot_be_changed(tmp_path: Path) -> None:
    """It is part of where every waybill lives: the message says both numbers."""
    opened(tmp_path, 3)
    with pytest.raises(WrongData, match="has 3 partitions, not 4"):
        opened(tmp_path, 4)
    assert opened(tmp_path).partition_count == 3


@pytest.mark.parametrize("count", [-1, PARTITIONS_MAX + 1])
def test_the_number_of_partitions_is_bounded(tmp_path: Path, count: int) -> None:
    """1 to 256; nothing is made otherwise."""
    with pytest.raises(WrongData, match=f"1-{PARTITIONS_MAX}"):
        opened(tmp_path, count)
    assert opened(tmp_path, PARTITIONS_MAX).partition_count == PARTITIONS_MAX


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """The second is told, the first is not disturbed, and after it the directory is free."""
    first = DataDirectory(tmp_path, 1, 1)
    with pytest.raises(DirectoryInUse, match="in use"):
        opened(tmp_path)
    first.close()
    assert opened(tmp_path) == first.manifest


def test_a_start_waits_for_one_that_is_on_its_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process holds the lock for a moment longer; that is not "in use"."""
    first = DataDirectory(tmp_path, 1, 1)
    # It goes while the other one waits for it.
    monkeypatch.setattr("trackd.store.data_directory.time.sleep", lambda _: first.close())
    assert opened(tmp_path) == first.manifest


def test_an_error_does_not_keep_the_directory_locked(tmp_path: Path) -> None:
    """Whoever asked for the wrong number may ask again."""
    opened(tmp_path, 2)
    for _ in range(3):
        with pytest.raises(WrongData):
            opened(tmp_path, 3)
    assert opened(tmp_path).partition_count == 2


def test_a_new_identity_makes_it_another_data_set(tmp_path: Path) -> None:
    """After an accepted loss; the partitions stay."""
    directory = DataDirectory(tmp_path, 3, 1)
    before = directory.manifest
    directory.become_another_data_set()
    after = directory.manifest
    directory.close()
    assert after.data_set_id != before.data_set_id
    assert after.partition_count == before.partition_count
    assert opened(tmp_path) == after


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"manifest"',
        b"\xff\xfe",
        b"{}",
        b'{"format_version": 1}',
        b'{"format_version": 1, "data_set_id": "a", "partition_count": 1, "more": 1}',
        b'{"format_version": 1, "data_set_id": "a", "partition_count": "1"}',
        b'{"format_version": 1, "data_set_id": "a", "partition_count": 0}',
        b'{"format_version": 1, "data_set_id": 5, "partition_count": 1}',
    ],
)
def test_a_manifest_that_is_none_is_not_guessed_at(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in the file, it is WrongData; and it is left as it is."""
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(WrongData, match=r"manifest\.json|format"):
        opened(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == content


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    """The message says which one it has and which one this version reads."""
    opened(tmp_path)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))
    with pytest.raises(WrongData, match=r"format 99.*reads formats up to 2"):
        opened(tmp_path)


def test_data_of_the_first_format_is_taken_over_when_it_is_served(tmp_path: Path) -> None:
    """Older versions refuse it from then on, and not because somebody looked; all else stays."""
    made = opened(tmp_path)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 1}))
    assert opened(tmp_path).format_version == 1
    directory = DataDirectory(tmp_path, None, 1)
    directory.begin(accept_data_loss=False)
    directory.close()
    assert opened(tmp_path) == made


def test_partitions_without_a_manifest_are_not_taken_for_a_new_directory(tmp_path: Path) -> None:
    """A lost manifest must not hide the data behind an empty store."""
    directory = DataDirectory(tmp_path, 1, 1)
    directory.partition_path(0).mkdir()
    directory.close()
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(WrongData, match="missing"):
        opened(tmp_path)


def made(path: Path, partition_count: int) -> DataDirectory:
    """A directory with its partitions, of which the first has acknowledged something."""
    directory = DataDirectory(path, partition_count, 1)
    directory.begin(accept_data_loss=False)
    mark = DurableMark(directory.mark_path(0))
    mark.write(7)
    mark.close()
    directory.refuse_if_incomplete()
    return directory


def test_more_partitions_than_the_manifest_names_are_not_passed_over(tmp_path: Path) -> None:
    """A number that was damaged would hide what was acknowledged."""
    made(tmp_path, 3).close()
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "partition_count": 2}))
    directory = DataDirectory(tmp_path, None, 1)
    with pytest.raises(WrongData, match=r"partition-0002.*names 2"):
        directory.refuse_if_incomplete()
    directory.close()


def test_a_partition_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    """Unless nothing was acknowledged yet: then a first start was cut short."""
    directory = made(tmp_path, 2)
    directory.partition_path(1).rmdir()
    with pytest.raises(DataBehind, match=r"partition-0001 is missing.*up to position 7"):
        directory.refuse_if_incomplete()
    before = directory.manifest
    directory.begin(accept_data_loss=True)
    assert directory.partition_path(1).is_dir()
    assert directory.manifest != before
    directory.partition_path(1).rmdir()
    directory.mark_path(0).unlink()
    directory.begin(accept_data_loss=False)
    directory.close()


def test_a_place_that_is_no_directory_is_a_failure_of_storage(tmp_path: Path) -> None:
    """A file, or something below a file."""
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageFailed):
            opened(path)


def test_partitions_and_marks_have_their_own_places(tmp_path: Path) -> None:
    """One each, for as many partitions as there can be."""
    directory = DataDirectory(tmp_path, PARTITIONS_MAX, 1)
    paths = {directory.partition_path(n) for n in range(PARTITIONS_MAX)}
    paths |= {directory.mark_path(n) for n in range(PARTITIONS_MAX)}
    directory.close()
    assert len(paths) == 2 * PARTITIONS_MAX
    assert {path.parent for path in paths} == {tmp_path}
