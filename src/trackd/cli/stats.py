"""`trackd stats`: the figures of a running server, once or again and again."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from trackd.cli.server_option import DEFAULT_SERVER, Server, explain, refuse_if_nobody_listens
from trackd.cli.terminal import INTERRUPTED, examples, fail, print_json, results

if TYPE_CHECKING:
    from rich.console import Group

    from trackd.v1.admin_pb2 import GetStatsResponse, LatencySummary, PartitionStats

EPILOG = examples(
    "trackd stats",
    "trackd stats --watch",
    "trackd stats --json | jq '.partitions[].durable_position'",
)

# A pipe has no edge: the widest figures that there are fit into this.
_PIPE_CHARACTERS = 200
_WHOLE_US = 10_000  # from 10 ms on a tenth says nothing
_KIB, _UNITS = 1024, ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class _Reading:
    """The figures at one moment, and those before."""

    at: float
    now: "GetStatsResponse"
    before: "_Reading | None"

    def events_per_second(self, partition: "PartitionStats") -> float | None:
        """How fast a partition took events in since the reading before; None if it is not there.

        The partitions of a worker that is away are in no reading.
        """
        if self.before is None:
            return None
        for then in self.before.now.partitions:
            if then.partition == partition.partition:
                came = partition.durable_position - then.durable_position
                return came / (self.at - self.before.at)
        return None


def command(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, typer.Option(min=0.1, metavar="N", help="Seconds between two.")
    ] = 1.0,
    json: Annotated[
        bool, typer.Option("--json", help="A line of JSON, with the field names of GetStats.")
    ] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show the figures of a running server, partition by partition.

    The position is the number of events that a partition ever accepted. Commit and fsync are
    latencies of the last minutes: the median, and the 99th percentile behind the slash. Stalls tell
    that the disk, or the server's --background-threads, cannot keep up.
    """
    from trackd.client.errors import TrackdError

    refuse_if_nobody_listens(server)
    try:
        asyncio.run(_show(server, watch=watch, interval_s=interval_s, json=json))
    except TrackdError as error:
        fail(explain(error, server=server))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def _show(server: str, *, watch: bool, interval_s: float, json: bool) -> None:
    console = results()
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_CHARACTERS)
    readings = _readings(server, interval_s=interval_s, once=not watch)
    if json:
        from trackd.cli.documents import document

        async for reading in readings:
            print_json(document(reading.now, zeros=True))
    elif watch and console.is_terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False) as live:
            async for reading in readings:
                live.update(_picture(reading), refresh=True)
    else:
        async for reading in readings:
            console.print(_picture(reading))


async def _readings(server: str, *, interval_s: float, once: bool) -> AsyncIterator[_Reading]:
    from trackd.client.admin import Admin

    before = None
    async with Admin(server) as admin:
        while True:
            now = await admin.get_stats()
            before = _Reading(time.monotonic(), now, before)
            yield before
            if once:
                return
            await asyncio.sleep(interval_s)


def _picture(reading: _Reading) -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    stats = reading.now
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        # Where a terminal is too narrow, a number on two lines is better than half of one.
        table.add_column(name, justify="right", overflow="fold")
    for partition in stats.partitions:
        table.add_row(*_row(partition, reading.events_per_second(partition)))
    up_s = int(time.time() - stats.started_at_ms / 1000)
    head = Text.assemble(
        ("trackd ", "bold"),
        f"{stats.server_version}, up {up_s // 3600}:{up_s // 60 % 60:02}:{up_s % 60:02},"
        f" {_size(stats.disk_free_bytes)} free on disk",
        ("  LOW SPACE: writes are refused", "bold red") if stats.low_space else "",
    )
    return Group(head, table)


_COLUMNS = (
    "partition",
    "position",
    "events/s",
    "waybills",
    "on disk",
    "queued",
    "commit ms",
    "fsync ms",
    "stalls",
)


def _row(partition: "PartitionStats", events_per_second: float | None) -> list[str]:
    return [
        str(partition.partition),
        f"{partition.durable_position:,}",
        "" if events_per_second is None else f"{events_per_second:,.0f}",
        f"{partition.waybills:,}",
        _size(partition.bytes_on_disk),
        f"{partition.queued_events:,}",
        _latency(partition.commit_latency),
        _latency(partition.fsync_latency),
        f"{partition.stalls:,}",
    ]


def _latency(latency: "LatencySummary") -> str:
    if not latency.count:
        return "-"
    return f"{_milliseconds(latency.p50_us)}/{_milliseconds(latency.p99_us)}"


def _milliseconds(us: int) -> str:
    return f"{us / 1000:.1f}" if us < _WHOLE_US else f"{us / 1000:.0f}"


def _size(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < _KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KIB
    return f"{size:.1f} {_UNITS[-1]}"
