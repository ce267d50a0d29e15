"""One page of metrics over all workers: each sample of each worker, with a `worker` label.

Read from the workers' own pages when Prometheus asks. A worker that does not answer is left out,
and `trackd_cluster_worker_up` says so. Knows no metric of the workers by name.
"""

import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.process_collector import ProcessCollector

from trackd.cluster.workers import WorkerProcess

# Less than Prometheus's own default of 10 s: the other workers' figures are then still in time.
_SCRAPE_TIMEOUT_S = 5.0


class ClusterFigures:
    """The workers' figures together, and how the workers are."""

    def __init__(self, workers: Sequence[WorkerProcess]) -> None:
        self.registry = CollectorRegistry()
        self._workers = workers
        self._scrapers = ThreadPoolExecutor(len(workers), thread_name_prefix="scrape")
        self.registry.register(self)
        ProcessCollector(namespace="trackd_supervisor", registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """Every family of every worker, once, and how the workers are."""
        texts = list(self._scrapers.map(_page_of, self._workers))
        up = GaugeMetricFamily(
            "trackd_cluster_worker_up",
            "1 while the worker serves its partitions and shows its figures.",
            labels=["worker"],
        )
        starts = CounterMetricFamily(
            "trackd_cluster_worker_starts", "How often the worker was started.", labels=["worker"]
        )
        for worker, text in zip(self._workers, texts, strict=True):
            up.add_metric([str(worker.number)], float(bool(text)))
            starts.add_metric([str(worker.number)], worker.starts)
        yield up
        yield starts
        yield from together(
            {str(worker.number): text for worker, text in zip(self._workers, texts, strict=True)}
        )


def together(pages: dict[str, str]) -> Iterator[Metric]:
    """The families of several pages as one each, every sample labelled with its page's name."""
    families: dict[str, Metric] = {}
    for name, text in pages.items():
        for family in text_string_to_metric_families(text):
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            whole.samples += [
                sample._replace(labels={**sample.labels, "worker": name})
                for sample in family.samples
            ]
    yield from families.values()


def _page_of(worker: WorkerProcess) -> str:
    """What the worker shows; nothing if it does not serve or does not answer."""
    if not worker.serving:
        return ""
    try:
        url = f"http://{worker.metrics}/metrics"
        with urllib.request.urlopen(url, timeout=_SCRAPE_TIMEOUT_S) as answer:
            text: str = answer.read().decode()
    except OSError:
        return ""
    return text
