"""Bounds under which nothing could move, or that the server would refuse, are told at once."""

from collections.abc import Callable

import pytest

from tests.client.journeys import numbered_scan
from trackd.client import FrontEndOptions, ScannerOptions, Spool, SpoolOptions
from trackd.client.options import BATCH_EVENTS_LIMIT, BATCH_FRAME_BYTES, REQUEST_BYTES_LIMIT
from trackd.client.window import Batch, Entry


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ScannerOptions(batch_events_max=0),
        lambda: ScannerOptions(batch_events_max=1_001),
        lambda: ScannerOptions(batch_bytes_max=1_000),
        lambda: ScannerOptions(batch_bytes_max=1024 * 1024),
        lambda: ScannerOptions(batches_in_flight_max=0),
        lambda: ScannerOptions(buffer_events_max=0),
        lambda: ScannerOptions(buffer_bytes_max=1_000),
        lambda: SpoolOptions(bytes_max=1_000),
        lambda: SpoolOptions(event_ids_reserved=0),
        lambda: FrontEndOptions(parallel_calls_max=0),
        lambda: FrontEndOptions(deadline_ms=0),
        lambda: Spool("nowhere/spool.db", device_id=""),
        lambda: Spool("nowhere/spool.db", device_id="d" * 33),
        lambda: Spool("nowhere/spool.db", device_id="枪"),
    ],
)
def test_a_bound_that_cannot_work_is_refused(wrong: Callable[[], object]) -> None:
    """Refused when it is set, not when the first scan gets stuck."""
    with pytest.raises(ValueError, match="must be"):
        wrong()


def test_the_largest_batch_fits_the_servers_limit() -> None:
    """A batch of the most events and the most bytes allowed is under 1 MiB with its frame."""
    options = ScannerOptions(
        batch_events_max=BATCH_EVENTS_LIMIT,
        batch_bytes_max=REQUEST_BYTES_LIMIT - BATCH_FRAME_BYTES,
    )
    # The longest frame for what they hold: as many events as allowed, each with a 2-byte length.
    size = options.batch_bytes_max // options.batch_events_max
    wire = numbered_scan(1, remark="r" * size).SerializeToString()[:size]
    batch = Batch("9" * 64, [Entry(n, wire) for n in range(options.batch_events_max)])
    assert options.batch_bytes_max - size * options.batch_events_max < options.batch_events_max
    assert len(batch.encode()) <= REQUEST_BYTES_LIMIT
