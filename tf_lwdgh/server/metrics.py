# SPDX-License-Identifier: Apache-2.0
"""What a server counts and times, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client as prometheus

from tf_lwdgh.server.work import Timing

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server; every name begins with tf_lwdgh_."""

    def __init__(self) -> None:
        self._registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        prometheus.PlatformCollector(registry=registry)
        self._requests = prometheus.Counter(
            "tf_lwdgh_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._seconds = self._histogram("request_seconds", "From a request's head to its answer's end.")
        self._model = self._histogram("model_seconds", "Within it, in TensorFlow.")
        self._waited = self._histogram("queue_seconds", "Within it, waiting for a thread.")

    def _histogram(self, name: str, told: str) -> prometheus.Histogram:
        return prometheus.Histogram(f"tf_lwdgh_{name}", told, ["route"], buckets=_SECONDS, registry=self._registry)

    def watch(self, name: str, told: str, value: Callable[[], float]) -> None:
        """Adds a gauge whose value is asked for when it is read."""
        gauge = prometheus.Gauge(f"tf_lwdgh_{name}", told, registry=self._registry)
        gauge.set_function(value)

    def observe(self, route: str, method: str, status: int, seconds: float, timing: Timing) -> None:
        """Counts one request.

        Args:
          route: its pattern, so that there are few.
          method: of HTTP.
          status: of HTTP.
          seconds: that it took.
          timing: what they went to.
        """
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if timing.model:
            self._model.labels(route).observe(timing.model)
            self._waited.labels(route).observe(timing.waited)

    def text(self) -> bytes:
        """All of them."""
        return prometheus.generate_latest(self._registry)
