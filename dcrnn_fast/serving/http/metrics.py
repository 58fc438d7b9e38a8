"""A server's metrics for Prometheus. Needs the extra ``serve``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics, generate_latest

from .served import Served, short_id

REASONS = ("overload", "deadline", "stopping", "failed")
RESULTS = ("ok", "failed")
RATES = {
    "oov": "Share of cells out of vocabulary in about the last 2,000 rows.",
    "missing": "Share of missing cells in about the last 2,000 rows.",
    "train_oov": "Share of cells out of vocabulary in the train rows.",
    "train_missing": "Share of missing cells in the train rows.",
}
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Metrics:
    """Counters, gauges and histograms of one server, by the names of docs/guide/server.md."""

    def __init__(self) -> None:
        disable_created_metrics()  # the text format 0.0.4 knows no times of creation
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("dcrnn_fast_requests", "Requests that were answered, by status.", ["status"], registry=registry)
        self.rows = Counter("dcrnn_fast_rows", "Rows whose scores were answered.", registry=registry)
        self.seconds = Histogram(
            "dcrnn_fast_request_seconds", "Seconds from a request's arrival at /v1/score to its answer.", buckets=SECONDS, registry=registry
        )
        self.batch_rows = Histogram("dcrnn_fast_batch_rows", "Rows that were scored together.", buckets=ROWS, registry=registry)
        self.queue_rows = Gauge("dcrnn_fast_queue_rows", "Rows that wait.", registry=registry)
        self.rejected = Counter("dcrnn_fast_rejected", "Requests that were answered 503, by reason.", ["reason"], registry=registry)
        self.reloads = Counter("dcrnn_fast_reloads", "Loads of the model after the first one, by result.", ["result"], registry=registry)
        self._model = Info("dcrnn_fast_model", "1, with the id of the model that scores.", registry=registry)
        self._rates = {name: Gauge(f"dcrnn_fast_{name}_rate", help, ["field"], registry=registry) for name, help in RATES.items()}
        for reason in REASONS:
            self.rejected.labels(reason)
        for result in RESULTS:
            self.reloads.labels(result)

    def text(self, served: Served) -> bytes:
        """All of them in the text format, version 0.0.4; ``served`` is what scores now."""
        self._model.info({"model": short_id(served)})
        for gauge in self._rates.values():
            gauge.clear()
        if served.unseen is not None:
            for rows, rates in (("", served.unseen.rates()), ("train_", served.unseen.trained())):
                for field, shares in rates.items():
                    for kind, share in shares.items():
                        self._rates[f"{rows}{kind}"].labels(field).set(share)
        return generate_latest(self._registry)
