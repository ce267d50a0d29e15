"""What a committer counts of itself; read by metrics and by `trackd stats`."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from trackd.latency import LatencyHistogram
from trackd.store.planner import Verdict


@dataclass(slots=True)
class CommitFigures:
    """What the committer counts; written by it alone."""

    commits: int = 0
    events: int = 0
    duplicates: int = 0
    rejections: int = 0
    stalls: int = 0
    stalled_s: float = 0.0
    batch_sizes: dict[int, int] = field(default_factory=dict)
    commit_latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    fsync_latency: LatencyHistogram = field(default_factory=LatencyHistogram)

    def count(self, events: int, verdicts: Iterable[Verdict]) -> None:
        """Counts a commit that is durable."""
        self.commits += 1
        self.events += events
        for verdict in verdicts:
            self.duplicates += verdict.duplicates
            self.rejections += len(verdict.rejections)
        bucket = 1 << (max(events, 1) - 1).bit_length()
        self.batch_sizes[bucket] = self.batch_sizes.get(bucket, 0) + 1
