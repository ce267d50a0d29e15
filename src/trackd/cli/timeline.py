"""How a parcel looks on a terminal: messages in, a picture out. Knows no server."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trackd.cli.words import (
    code_text,
    flag_text,
    local_time,
    milestone_text,
    reason_text,
    receiver_text,
    relative_time,
)
from trackd.domain.catalogue import Language
from trackd.domain.vocabulary import EventCode, Milestone
from trackd.v1.event_pb2 import ScanEvent, ShipmentStatus

_MILESTONE_STYLES: dict[int, str] = {
    Milestone.DELIVERED: "bold green",
    Milestone.OUT_FOR_DELIVERY: "bold bright_blue",
    Milestone.READY_FOR_COLLECTION: "bold bright_blue",
    Milestone.DELIVERY_ATTEMPT_FAILED: "bold yellow",
    Milestone.IN_CUSTOMS: "bold yellow",
    Milestone.RETURNING: "bold magenta",
    Milestone.RETURNED: "bold magenta",
    Milestone.CANCELLED: "bold red",
    Milestone.DESTROYED: "bold red",
}
_TROUBLE: frozenset[int] = frozenset(
    {
        EventCode.CUSTOMS_HELD,
        EventCode.DELIVERY_ATTEMPT_FAILED,
        EventCode.REFUSED,
        EventCode.CANCELLED,
        EventCode.DESTROYED,
        EventCode.DAMAGED,
        EventCode.LOST,
        EventCode.DELAYED,
        EventCode.HELD,
    }
)
# On a narrower terminal what happened would have no room beside when it did.
_BESIDE_CHARACTERS_MIN = 60
_HEAD = {
    Language.EN: "{count} scans since {first}, updated {updated}; times are {zone}",
    Language.ZH: "自{first}起共{count}次扫描，{updated}更新；时间为{zone}",
}
_OLDER = {Language.EN: "… {} older; --all shows them", Language.ZH: "…… 更早{}条，--all 显示全部"}
_LABELS = {
    Language.EN: {"container": "in {}", "voids": "corrects scan {}", "clears": "clears {}"},
    Language.ZH: {"container": "容器 {}", "voids": "更正扫描 {}", "clears": "解除 {}"},
}


class Timeline:
    """A parcel for rich to print: a headline, then its scans, the newest first."""

    def __init__(
        self,
        status: ShipmentStatus,
        events: Sequence[ScanEvent],
        *,
        language: Language,
        now_ms: int,
    ) -> None:
        """`events` are the newest ones, the newest first; the status says how many there are."""
        self._status = status
        self._events = events
        self._language = language
        self._now_ms = now_ms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich."""
        older = self._status.event_count - len(self._events)
        parts: list[Text | Table | Padding] = [self._headline(), self._summary(), Text()]
        if options.max_width >= _BESIDE_CHARACTERS_MIN:
            parts.append(self._scans())
        else:
            parts += self._scans_below()
        if older > 0:
            parts.append(Text("  " + _OLDER[self._language].format(f"{older:,}"), style="dim"))
        yield Group(*parts)

    def _headline(self) -> Text:
        status = self._status
        style = _MILESTONE_STYLES.get(status.milestone, "bold cyan")
        line = Text.assemble(
            (status.waybill_number, "bold"),
            "  ",
            (milestone_text(status.milestone, self._language), style),
        )
        for flag in status.flags:
            line.append("  ⚑ " + flag_text(flag, self._language), style="bold red")
        return line

    def _summary(self) -> Text:
        status = self._status
        first = local_time(status.first_event_at_ms)
        return Text(
            _HEAD[self._language].format(
                count=f"{status.event_count:,}",
                first=f"{first:%Y-%m-%d}",
                updated=self._relative(status.updated_at_ms),
                zone=_zone(local_time(self._now_ms)),
            ),
            style="dim",
        )

    def _scans(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        day = ""
        for event in self._events:
            at = local_time(event.occurred_at_ms)
            date = f"{at:%Y-%m-%d}"
            current = self._is_current(event)
            table.add_row(
                _dot(current=current),
                Text(date if date != day else "", style="bold"),
                Text(f"{at:%H:%M:%S}"),
                Text(self._relative(event.occurred_at_ms)),
                self._scan(event, current=current),
            )
            day = date
        return table

    def _scans_below(self) -> list[Text | Table | Padding]:
        """When in a line, what happened below it."""
        parts: list[Text | Table | Padding] = []
        for event in self._events:
            at, current = local_time(event.occurred_at_ms), self._is_current(event)
            parts.append(_dot(current=current).append(f" {at:%Y-%m-%d %H:%M:%S}", style="default"))
            parts.append(Padding(self._scan(event, current=current), (0, 0, 0, 2)))
        return parts

    def _is_current(self, event: ScanEvent) -> bool:
        return event.event_id == self._status.last_event.event_id

    def _scan(self, event: ScanEvent, *, current: bool) -> Text:
        style = "red" if event.code in _TROUBLE else "bold" if current else ""
        line = Text(code_text(event.code, self._language), style=style)
        for detail in self._details(event):
            line.append("  " + detail, style="default")
        return line

    def _details(self, event: ScanEvent) -> list[str]:
        """What else is worth reading of a scan: where, why, by whom."""
        labels = _LABELS[self._language]
        place = " → ".join(filter(None, (event.facility_code, event.next_facility_code)))
        details = [place]
        if event.reason:
            details.append(reason_text(event.reason, self._language))
        if event.HasField("receipt"):
            details.append(receiver_text(event.receipt.received_by, self._language))
        if event.container_number:
            details.append(labels["container"].format(event.container_number))
        details += [
            labels[key].format(event.attributes[key])
            for key in ("voids", "clears")
            if key in event.attributes
        ]
        if event.remark:
            details.append(f"“{event.remark}”")
        return [detail for detail in details if detail]

    def _relative(self, at_ms: int) -> str:
        return relative_time(at_ms, now_ms=self._now_ms, language=self._language)


def _dot(*, current: bool) -> Text:
    return Text("●" if current else "○", style="bold green" if current else "dim")


def _zone(now: datetime) -> str:
    name, offset = now.tzname() or "", f"{now:%z}"
    if name == "UTC":
        return name
    place = f"UTC{offset[:3]}:{offset[3:]}"
    # Zones without letters of their own are called by their offset.
    return f"{name} ({place})" if name.isalpha() else place
