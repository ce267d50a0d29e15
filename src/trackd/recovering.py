"""What a crash left in the logs of partitions, looked at and taken in before they are opened.

Of several partitions all but the first by processes of their own, a core for each: RocksDB's
binding holds Python's lock while it reads a log, so threads would wait for each other, and this
process has statuses to replay meanwhile. A process that fails is no matter: whoever opens the
partition meets the same, and tells it. `python -m trackd.recovering` is such a process.

Part of the wiring.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path

from trackd.cluster.membership import die_with_parent
from trackd.partition import refuse_if_behind
from trackd.store.data_directory import DataDirectory
from trackd.store.engine import EngineOptions, RocksEngine, SharedCache
from trackd.store.errors import DataDamaged
from trackd.store.mark import read_mark
from trackd.store.wal import defuse

# Logs of so many bytes take longer than a process takes to start: about half a second.
_WORTH_BYTES = 64 << 20
_CACHE_BYTES = 8 << 20


def look_first(number: int, path: Path, mark: Path, options: EngineOptions) -> None:
    """Raises DataBehind or DataDamaged while all that is left of a partition is still there.

    Opening for writing lets go of what stands behind a damage in the log, and with it of what could
    still be saved. mark: the file that says what was acknowledged.
    """
    if not (path / "CURRENT").exists():
        return
    acknowledged = read_mark(mark)
    defuse(path)
    try:
        engine = RocksEngine(path, options, SharedCache(_CACHE_BYTES), read_only=True)
    except DataDamaged as error:
        raise DataDamaged(
            f"partition {number}, acknowledged up to position {acknowledged or 0}, cannot be"
            f" opened: {error}"
        ) from error
    try:
        refuse_if_behind(number, engine, acknowledged)
    finally:
        engine.close()


@contextlib.contextmanager
def recovering_ahead(
    directory: DataDirectory, numbers: Sequence[int], options: EngineOptions
) -> Iterator[Iterator[int]]:
    """Gives the numbers of partitions in order, each when it is to be opened.

    Of all but the first, those logs that are worth a process are taken in by then; by as many
    processes at a time as there are other cores.
    """
    others = len(os.sched_getaffinity(0)) - 1
    with ThreadPoolExecutor(max(others, 1), thread_name_prefix="recovering") as pool:
        processes = {
            number: pool.submit(
                subprocess.run,
                _command(number, directory, options),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Who starts next waits until this one is gone, too.
                pass_fds=(directory.lock_descriptor,),
                start_new_session=True,
                check=False,
            )
            for number in numbers[1:]
            if others and _log_bytes(directory.partition_path(number)) >= _WORTH_BYTES
        }
        try:
            yield _when_ended(numbers, processes)
        finally:
            for process in processes.values():
                process.cancel()


def _when_ended(
    numbers: Sequence[int], processes: "Mapping[int, Future[subprocess.CompletedProcess[bytes]]]"
) -> Iterator[int]:
    """Each when its process has ended, well or not."""
    for number in numbers:
        if number in processes:
            wait([processes[number]])
        yield number


def _log_bytes(path: Path) -> int:
    return sum(log.stat().st_size for log in path.glob("*.log"))


def _command(number: int, directory: DataDirectory, options: EngineOptions) -> list[str]:
    return [
        *(sys.executable, "-m", "trackd.recovering"),
        *(str(os.getpid()), json.dumps(asdict(options)), str(number)),
        *(str(directory.partition_path(number)), str(directory.mark_path(number))),
    ]


def main(parent: str, options: str, number: str, path: str, mark: str) -> None:
    """Looks at a partition's log, and takes it in. Raises what whoever opens it would."""
    die_with_parent(int(parent))
    engine_options = EngineOptions(**json.loads(options))
    look_first(int(number), Path(path), Path(mark), engine_options)
    RocksEngine(Path(path), engine_options, SharedCache(_CACHE_BYTES)).close()


if __name__ == "__main__":
    main(*sys.argv[1:])
