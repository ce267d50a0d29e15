"""Documents: durable when told, seen only then, found again by the next start."""

import asyncio

from tests.store.office import Office, outcome, simulated
from tests.store.simulated import Faults
from trackd.store.documents import Documents
from trackd.store.errors import SpaceLow, StorageFailed
from trackd.store.keys import document_key, document_of


def test_a_document_is_durable_when_it_is_told() -> None:
    """What a power cut leaves is what the next start reads; a kind does not show another's."""

    async def test() -> None:
        office = Office()
        documents = Documents(office.engine, office.committer)
        await documents.put("colour", {"red": b"1", "blue": b"2"})
        await documents.put("colours", {"red": b"3"})
        await documents.put("colour", {"red": None, "green": b"4"})
        again = Documents(office.engine.crash(), office.committer)
        for each in (documents, again):
            assert list(each.list("colour")) == [("blue", b"2"), ("green", b"4")]
            assert list(each.list("colours")) == [("red", b"3")]
            assert each.get("colour", "red") is None
            assert each.get("colour", "blue") == b"2"
            assert each.get("none", "blue") is None

    simulated(test)


def test_nobody_sees_a_document_that_could_vanish() -> None:
    """Until it is durable the one before it is told."""

    async def test() -> None:
        office = Office()
        documents = Documents(office.engine, office.committer)
        await documents.put("colour", {"red": b"1"})
        putting = asyncio.ensure_future(documents.put("colour", {"red": b"2"}))
        await asyncio.sleep(0.004)
        assert (putting.done(), documents.get("colour", "red")) == (False, b"1")
        await putting
        assert documents.get("colour", "red") == b"2"

    simulated(test)


def test_a_failure_changes_nothing_that_is_seen() -> None:
    """The caller hears of it."""

    async def test() -> None:
        office = Office(faults=Faults(flush=1))
        documents = Documents(office.engine, office.committer)
        assert await outcome(documents.put("colour", {"red": b"1"})) is StorageFailed
        assert documents.get("colour", "red") is None

    simulated(test)


def test_a_nearly_full_disk_takes_no_documents_but_lets_go_of_some() -> None:
    """What frees space must be possible."""

    async def test() -> None:
        office = Office()
        documents = Documents(office.engine, office.committer)
        await documents.put("colour", {"red": b"1"})
        office.space.low = True
        assert await outcome(documents.put("colour", {"blue": b"1"})) is SpaceLow
        await documents.put("colour", {"red": None})
        assert list(documents.list("colour")) == []

    simulated(test)


def test_a_name_may_hold_anything_but_its_kind_ends() -> None:
    """Keys come apart again."""
    for name in ("a", "a/b", "ä\0b", ""):
        assert document_of(document_key("kind", name)) == ("kind", name)
