"""The metrics as Prometheus reads them: its text format, by its own library."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from learnflow_http.metrics import BOUNDS_S, Family, Metrics

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4.encode("ascii")

_BOUNDS: Final = [*map(str, BOUNDS_S), "+Inf"]


def page(metrics: Metrics) -> bytes:
    """The figures of all workers, and of their processes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(metrics))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for family in self._metrics.families:
            if family.kind == "histogram":
                yield _histogram(self._metrics, family)
            elif family.cells:
                yield _numbers(self._metrics, family)
        yield from _processes(self._metrics)


def _numbers(metrics: Metrics, family: Family) -> Metric:
    """A family of counters or gauges. Requests are told of as soon as there was one; there are thousands of series."""
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    told = kind(family.name, family.description, labels=family.labels)
    for values, cell in family.cells.items():
        number = metrics.total(family, cell)
        if number or family is not metrics.requests:
            told.add_metric(values, number)
    return told


def _histogram(metrics: Metrics, family: Family) -> Metric:
    told = HistogramMetricFamily(family.name, family.description, labels=family.labels)
    for values, first in family.cells.items():
        *counts, seconds = (metrics.total(family, first + offset) for offset in range(len(_BOUNDS) + 1))
        if any(counts):
            told.add_metric(values, list(zip(_BOUNDS, accumulate(counts), strict=True)), seconds)
    return told


def _processes(metrics: Metrics) -> Iterator[Metric]:
    """Memory, processor time and open files of each worker, where the system tells them (Linux)."""
    told: dict[str, Metric] = {}
    for number, pid in metrics.workers():
        for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
            family = told.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
            for sample in metric.samples:
                family.add_sample(sample.name, {"worker": str(number)}, sample.value)
    yield from told.values()
