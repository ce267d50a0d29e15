"""What the kernel says of a process: CPU, memory, bytes written. Linux only, read from /proc."""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SETTLE_INTERVAL_S = 1.0
# What a server that has nothing to do takes.
_SETTLED_CORES = 0.05


@dataclass(frozen=True, slots=True)
class Usage:
    """A process and those it started, at one moment.

    CPU is user and system time of all their threads, ended ones too; engine_cpu_s is the part of
    RocksDB's threads, which write tables and merge them when they see fit. Memory that processes
    share counts once for each; rss_bytes_max is the sum of each one's highest.
    """

    cpu_s: float
    engine_cpu_s: float
    rss_bytes: int
    rss_bytes_max: int
    written_bytes: int


def usage_of(pid: int) -> Usage:
    """The usage of a running process. Raises OSError if there is none, or it is someone else's."""
    usages = [_usage_of_one(pid)]
    for child in _children_of(pid):
        # It may end at any time.
        with suppress(OSError, KeyError):
            usages.append(usage_of(child))
    return Usage(
        cpu_s=sum(usage.cpu_s for usage in usages),
        engine_cpu_s=sum(usage.engine_cpu_s for usage in usages),
        rss_bytes=sum(usage.rss_bytes for usage in usages),
        rss_bytes_max=sum(usage.rss_bytes_max for usage in usages),
        written_bytes=sum(usage.written_bytes for usage in usages),
    )


def _children_of(pid: int) -> list[int]:
    """The processes that a process started."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def _usage_of_one(pid: int) -> Usage:
    process = Path("/proc") / str(pid)
    status = _fields(process / "status")
    return Usage(
        cpu_s=_cpu_s(process / "stat"),
        engine_cpu_s=sum(_engine_cpu_s(thread) for thread in (process / "task").iterdir()),
        rss_bytes=int(status["VmRSS"].split()[0]) << 10,
        rss_bytes_max=int(status["VmHWM"].split()[0]) << 10,
        written_bytes=int(_fields(process / "io")["write_bytes"]),
    )


def _cpu_s(stat: Path) -> float:
    # The name in parentheses may hold spaces.
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _engine_cpu_s(thread: Path) -> float:
    # It may end at any time.
    with suppress(OSError):
        if (thread / "comm").read_text().startswith("rocksdb"):
            return _cpu_s(thread / "stat")
    return 0.0


def machine_cpu_s() -> float:
    """The CPU time that all processes of the machine have used, and other machines have stolen."""
    # user nice system idle iowait irq softirq steal; guest time is in user already.
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / _TICKS_PER_S


async def settle(pid: int, *, seconds_max: float) -> Usage:
    """Waits until the background work of a server has ended; its usage then.

    Compactions that are still to be done belong to the events that caused them.
    """
    before = usage_of(pid)
    ends_at = time.perf_counter() + seconds_max
    while time.perf_counter() < ends_at:
        await asyncio.sleep(_SETTLE_INTERVAL_S)
        now = usage_of(pid)
        if now.cpu_s - before.cpu_s <= _SETTLED_CORES * _SETTLE_INTERVAL_S:
            return now
        before = now
    return before


def _fields(file: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}
