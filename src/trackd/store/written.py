"""What a committer has in hand: scans that wait for a commit, commits that wait for a flush."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from trackd.store.aside import Aside
from trackd.store.planner import Plan, ScanTuple, Verdict


@dataclass(slots=True)
class Submission:
    """Scans that wait for a commit, together."""

    scans: Sequence[ScanTuple]
    answer: asyncio.Future[Verdict]
    submitted_at: float


@dataclass(slots=True)
class Written:
    """A plan in the engine that is not durable yet."""

    plan: Plan
    submissions: list[Submission]
    aside: Aside = field(default_factory=Aside)
