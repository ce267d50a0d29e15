"""What the kernel says of a process: CPU, memory, bytes written. Linux only, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """A process at one moment. CPU is user and system time of all its threads, ended ones too."""

    cpu_s: float
    rss_bytes: int
    rss_bytes_max: int
    written_bytes: int


def usage_of(pid: int) -> Usage:
    """The usage of a running process. Raises OSError if there is none, or it is someone else's."""
    process = Path("/proc") / str(pid)
    # The name in parentheses may hold spaces.
    stat = (process / "stat").read_text().rpartition(")")[2].split()
    status = _fields(process / "status")
    return Usage(
        cpu_s=(int(stat[11]) + int(stat[12])) / _TICKS_PER_S,
        rss_bytes=int(status["VmRSS"].split()[0]) << 10,
        rss_bytes_max=int(status["VmHWM"].split()[0]) << 10,
        written_bytes=int(_fields(process / "io")["write_bytes"]),
    )


def _fields(file: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}
