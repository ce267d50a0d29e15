"""Latencies, kept whole and read as percentiles. Nothing here knows what was timed."""

from array import array


class Latencies:
    """Seconds, one per observation; a run has few enough of them to keep every one."""

    def __init__(self) -> None:
        self._seconds = array("d")

    def add(self, seconds: float) -> None:
        """Takes one observation."""
        self._seconds.append(seconds)

    def __len__(self) -> int:
        return len(self._seconds)

    def percentiles_ms(self) -> dict[str, float]:
        """p50, p99 and max in milliseconds, by nearest rank; NaN without an observation."""
        ordered = sorted(self._seconds)
        if not ordered:
            return dict.fromkeys(("p50", "p99", "max"), float("nan"))

        def rank(part: float) -> float:
            return ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1e3

        return {"p50": rank(0.50), "p99": rank(0.99), "max": ordered[-1] * 1e3}
