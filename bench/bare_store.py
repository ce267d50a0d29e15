"""The rows that trackd writes, written without trackd: what the engine alone can take.

`python -m bench.bare_store record FILE` lets a partition take a load in process, and writes the
rows that it hands to the engine to a file, each commit's together with those that were written back
since the one before. `replay FILE` writes the same batches into an empty engine with the same
options, all through its log, with a flush of the log after each, and prints as JSON how long and
how much CPU it took. They are two processes, so that the second one's CPU is the engine's. This is
the only file of the bench that knows the server's rooms.
"""

import argparse
import asyncio
import json
import marshal
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bench.batches import BatchMaker, Mix
from trackd.partition import Partition, PartitionOptions
from trackd.settings import Settings
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.engine_contract import Rows
from trackd.store.errors import StorageFailed, WriteStalled
from trackd.store.keys import Table
from trackd.wire.scans import ScanReader

COMMIT_EVENTS = 1_000
_SETTLE_SECONDS_MAX = 30.0
_STALL_PAUSE_S = 0.001


class RecordingEngine(RocksEngine):
    """Writes down every batch, once there is somewhere to write to. Flushes nothing."""

    recording: BinaryIO | None = None

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self._written_back: list[tuple[str, list[tuple[bytes, bytes | None]]]] = []

    def write(self, batch: Sequence[tuple[Table, Rows]]) -> None:
        """See Engine."""
        super().write(batch)
        rows = [(table.value, list(rows)) for table, rows in batch]
        if self.recording:
            marshal.dump([*self._written_back, *rows], self.recording)
        self._written_back = []

    def write_unlogged(self, batch: Sequence[tuple[Table, Rows]]) -> int:
        """See Engine."""
        number = super().write_unlogged(batch)
        self._written_back += [(table.value, list(rows)) for table, rows in batch]
        return number

    def flush_wal(self) -> None:
        """Nothing here has to last."""


def _engine_parts(settings: Settings) -> tuple[EngineOptions, SharedCache]:
    options = EngineOptions(
        write_buffer_bytes=settings.write_buffer_bytes,
        background_threads=settings.background_threads,
    )
    return options, SharedCache(settings.block_cache_bytes)


def _raise(error: StorageFailed) -> None:
    raise error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def record(file: Path, directory: Path, mix: Mix, *, events: int) -> None:
    """Records the commits of so many events."""
    settings = Settings()
    engine = RecordingEngine(directory / "engine", *_engine_parts(settings))
    partition = Partition.open(
        0,
        engine,
        PartitionOptions(
            commit_events_max=settings.commit_events_max,
            waybill_events_max=settings.waybill_events_max,
            status_cache_bytes=settings.status_cache_bytes,
            write_back_events=settings.write_back_events_max,
        ),
        path=directory / "engine",
        mark_path=directory / "mark",
        data_set_id="bench",
        now_ms=_now_ms,
        on_failure=_raise,
    )
    reader = ScanReader(
        partition_count=1,
        event_bytes_max=settings.event_bytes_max,
        future_tolerance_ms=settings.future_tolerance_ms,
    )
    maker = BatchMaker(mix)
    with file.open("wb") as recording:
        engine.recording = recording
        for _ in range(0, events, COMMIT_EVENTS):
            batches = [
                reader.read_stream(maker.make(_now_ms()), _now_ms()).scans[0]
                for _ in range(COMMIT_EVENTS // mix.events_per_batch)
            ]
            await asyncio.gather(*(partition.submit(scans) for scans in batches))
        engine.recording = None
    await partition.close()


def replay(file: Path, directory: Path) -> dict[str, float]:
    """Writes a recording into an empty engine; `seconds` are those of writes and flushes alone."""
    engine = RocksEngine(directory / "engine", *_engine_parts(Settings()))
    tables = {table.value: table for table in Table}
    commits, rows, reading_s, cpu_before = 0, 0, 0.0, _cpu_s()
    began_at = time.perf_counter()
    with file.open("rb") as recording:
        while True:
            read_at = time.perf_counter()
            try:
                batch = [(tables[name], these) for name, these in marshal.load(recording)]
            except EOFError:
                break
            reading_s += time.perf_counter() - read_at
            _write(engine, batch)
            engine.flush_wal()
            commits += 1
            rows += sum(len(these) for _, these in batch)
    seconds = time.perf_counter() - began_at
    cpu_s = _settled_cpu_s()
    engine.close()
    return {
        "commits": commits,
        "rows": rows,
        "seconds": seconds - reading_s,
        "cpu_s": cpu_s - cpu_before - reading_s,
    }


def _write(engine: RocksEngine, batch: Sequence[tuple[Table, Rows]]) -> None:
    while True:
        try:
            engine.write(batch)
        except WriteStalled:
            time.sleep(_STALL_PAUSE_S)
        else:
            return


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _settled_cpu_s() -> float:
    """The CPU time once compactions have ended."""
    ends_at = time.monotonic() + _SETTLE_SECONDS_MAX
    before, now = -1.0, _cpu_s()
    while now - before > 0.03 and time.monotonic() < ends_at:
        time.sleep(1)
        before, now = now, _cpu_s()
    return now


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bare_store", description=__doc__)
    parser.add_argument("job", choices=["record", "replay"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--waybills", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.file.parent) as name:
        directory = Path(name)
        if arguments.job == "record":
            mix = Mix(waybills=arguments.waybills, seed=arguments.seed)
            asyncio.run(record(arguments.file, directory, mix, events=arguments.events))
        else:
            print(json.dumps(replay(arguments.file, directory)))


if __name__ == "__main__":
    _main()
