"""A source is read as it comes, however slowly it begins."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.lines import jsonl, scan
from trackd.cli.files.batches import BatchReader
from trackd.cli.files.records import START

TIMEOUT_S = 30


@pytest.fixture
def pipe() -> Iterator[tuple[Path, int]]:
    """A pipe: where it is read, and the descriptor to write to."""
    reading, writing = os.pipe()
    yield Path(f"/dev/fd/{reading}"), writing
    os.close(reading)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a reader waits for its source."""
    waiting, hand_over = threading.Event(), BatchReader._hand_over

    def told(reader: BatchReader) -> None:
        hand_over(reader)
        waiting.set()

    monkeypatch.setattr(BatchReader, "_hand_over", told)
    return waiting


async def test_a_pipe_may_have_nothing_to_say_yet(
    pipe: tuple[Path, int], waits: threading.Event
) -> None:
    """What comes after a while is read like what was there at once."""
    path, writing = pipe
    reader = BatchReader(path, mapping=None, batch_events_max=500)
    beginning = asyncio.ensure_future(reader.begin())
    assert await asyncio.to_thread(waits.wait, TIMEOUT_S)
    os.write(writing, jsonl(scan("SLOW-1", 1), scan("SLOW-1", 2)))
    os.close(writing)
    await beginning
    reader.start(at=START)
    batches = [batch async for batch in reader.batches()]
    assert [event.event_id for batch in batches for event in batch.events] == ["1", "2"]
    await reader.close()


async def test_a_pipe_that_says_nothing_can_be_left(
    pipe: tuple[Path, int], waits: threading.Event
) -> None:
    """As Ctrl-C does it: the waiting is cancelled, and the thread goes."""
    path, writing = pipe
    reader = BatchReader(path, mapping=None, batch_events_max=500)
    beginning = asyncio.ensure_future(reader.begin())
    assert await asyncio.to_thread(waits.wait, TIMEOUT_S)
    beginning.cancel()
    await asyncio.wait((beginning,), timeout=TIMEOUT_S)
    assert beginning.cancelled()
    await reader.close()
    os.close(writing)
