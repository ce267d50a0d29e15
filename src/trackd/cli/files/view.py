"""What is seen of a run while it goes on: a bar on a terminal, a line now and then elsewhere."""

from collections import deque
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trackd.cli.files.checkpoint import Checkpoint, Counts

_LINE_INTERVAL_S = 5.0
_RATE_WINDOW_S = 5.0


class Rate:
    """Events a second over the last few seconds."""

    def __init__(self, *, events: int) -> None:
        """Counts from `events` on."""
        self._seen: deque[tuple[float, int]] = deque([(monotonic(), events)])

    def at(self, events: int) -> float:
        """The rate, now that `events` are done."""
        now = monotonic()
        self._seen.append((now, events))
        while len(self._seen) > 1 and self._seen[0][0] < now - _RATE_WINDOW_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (events - before) / (now - then) if now > then else 0.0


class View(Protocol):
    """What a run tells while it goes on; used as a context."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, now: Checkpoint, bytes_read: int) -> None:
        """Called after each settled batch."""

    def say(self, text: str) -> None:
        """Tells something on the way."""


class Bar:
    """A bar with rate and time left."""

    def __init__(self, name: str, *, total: int | None, start: Checkpoint) -> None:
        """`total` is the size of the file, None where nobody knows."""
        self._rate = Rate(events=start.counts.events)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %" if total else ""),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task: TaskID = self._progress.add_task(name, total=total, told="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, now: Checkpoint, bytes_read: int) -> None:
        """Moves the bar."""
        rate = self._rate.at(now.counts.events)
        told = f"{told_counts(now.counts)}  {rate:,.0f}/s"
        self._progress.update(self._task, completed=bytes_read, told=told)

    def say(self, text: str) -> None:
        """Above the bar."""
        self._progress.console.print(text)


class Lines:
    """A line now and then, for logs."""

    def __init__(self, name: str, *, total: int | None, start: Checkpoint) -> None:
        """As of Bar."""
        self._name = name
        self._total = total
        self._rate = Rate(events=start.counts.events)
        self._start = (monotonic(), start.place.offset)
        self._said = monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def show(self, now: Checkpoint, bytes_read: int) -> None:
        """Says how far it is, when it is time."""
        rate = self._rate.at(now.counts.events)
        if monotonic() - self._said < _LINE_INTERVAL_S:
            return
        self._said = monotonic()
        told = f"{self._name}: {told_counts(now.counts)}, {rate:,.0f}/s"
        if self._total:
            told += f", {bytes_read / self._total:.0%}, {self._left(bytes_read)} left"
        self.say(told)

    def say(self, text: str) -> None:
        """A line of its own."""
        typer.echo(text, err=True)

    def _left(self, bytes_read: int) -> str:
        began, before = self._start
        per_byte = (monotonic() - began) / max(1, bytes_read - before)
        seconds = round(per_byte * max(0, (self._total or 0) - bytes_read))
        return f"{seconds // 60}:{seconds % 60:02}"


def view(name: str, *, total: int | None, start: Checkpoint) -> View:
    """The view that fits where standard error goes."""
    kind = Bar if Console(stderr=True).is_terminal else Lines
    return kind(name, total=total, start=start)


def told_counts(counts: Counts) -> str:
    """The counts in words."""
    return (
        f"{counts.accepted:,} accepted, {counts.duplicates:,} duplicates,"
        f" {counts.rejected:,} rejected"
    )
