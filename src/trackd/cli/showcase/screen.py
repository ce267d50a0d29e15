"""What the demo shows while it runs: a moving line on a terminal, a line now and then elsewhere."""

from collections import deque
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from trackd.cli.showcase.courier import Figures
from trackd.cli.showcase.pushes import Pushed
from trackd.cli.words import code_text, local_time
from trackd.domain.catalogue import Language

_LINE_INTERVAL_S = 5.0
_QUIET_LINE_INTERVAL_S = 60.0
_RATE_WINDOW_S = 3.0


class _Rate:
    """Scans a second over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, sent: int) -> float:
        now = monotonic()
        self._seen.append((now, sent))
        while self._seen[0][0] < now - _RATE_WINDOW_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (sent - before) / (now - then) if now > then else 0.0


class Screen(Protocol):
    """What the network tells while it is open."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def catching_up(self, figures: Figures, pushed: Pushed) -> None:
        """Called many times a second."""

    def going_on(self, figures: Figures, pushed: Pushed) -> None:
        """Called once a second."""


class Terminal:
    """A bar, then a line that tells of the latest scan."""

    def __init__(self) -> None:
        self._rate = _Rate()
        self._caught_up = False  # from the first time it is closed
        self._progress = Progress(disable=True)
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        bar = () if self._caught_up else (BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            *bar,
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self._caught_up = True

    def catching_up(self, figures: Figures, pushed: Pushed) -> None:
        """Moves the bar."""
        told = _told(figures, pushed, rate=self._rate.at(figures.sent))
        self._progress.update(self._task, completed=figures.share, description=told)

    def going_on(self, figures: Figures, pushed: Pushed) -> None:
        """Tells of the latest scan."""
        told = _told_live(figures, pushed)
        self._progress.update(self._task, completed=1.0, description=told)


class Log:
    """A line now and then."""

    def __init__(self) -> None:
        self._rate = _Rate()
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

    def catching_up(self, figures: Figures, pushed: Pushed) -> None:
        """Says how far it is, when it is time."""
        rate = self._rate.at(figures.sent)
        if monotonic() - self._said >= _LINE_INTERVAL_S:
            self._said = monotonic()
            typer.echo(f"{figures.share:4.0%}  {_told(figures, pushed, rate=rate)}", err=True)

    def going_on(self, figures: Figures, pushed: Pushed) -> None:
        """Tells of the latest scan, when it is time."""
        if monotonic() - self._said >= _QUIET_LINE_INTERVAL_S:
            self._said = monotonic()
            typer.echo(_told_live(figures, pushed), err=True)


def screen() -> Screen:
    """The one that fits where standard error goes."""
    return Terminal() if Console(stderr=True).is_terminal else Log()


def summary(figures: Figures) -> str:
    """What has become of everything that was sent."""
    return (
        f"{figures.sent:,} scans sent: {figures.accepted:,} stored, {figures.duplicates:,} repeats"
        f" recognised, {figures.rejected:,} rejected; acknowledged on disk in"
        f" {figures.ack_p50_ms:.0f} ms (p50), {figures.ack_p99_ms:.0f} ms (p99)"
    )


def pushes_summary(pushed: Pushed) -> str:
    """What the receiver of the demo has had."""
    wrong = f", {pushed.refused:,} REFUSED" if pushed.refused else ""
    return (
        f"{pushed.verified:,} webhooks received and verified{wrong}, {pushed.repeats:,} repeats;"
        f" half of them within {pushed.delay_p50_ms:,.0f} ms of their scan being on disk"
    )


def _told(figures: Figures, pushed: Pushed, *, rate: float) -> str:
    at = local_time(figures.at_ms)
    return (
        f"{at:%a %H:%M}  {figures.sent:,} scans, {rate:,.0f}/s,"
        f" ack p50 {figures.ack_p50_ms:.0f} ms p99 {figures.ack_p99_ms:.0f} ms;"
        f" {pushed.verified:,} webhooks verified"
    )


def _told_live(figures: Figures, pushed: Pushed) -> str:
    last = figures.last
    if last is None:
        return "waiting for the first scan"
    said = code_text(last.code, Language.EN)
    return (
        f"live  {figures.sent:,} scans, the latest {local_time(last.occurred_at_ms):%H:%M:%S}"
        f" {last.waybill_number} {said} {last.facility_code};"
        f" {pushed.verified:,} webhooks verified"
    )
