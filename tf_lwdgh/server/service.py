# SPDX-License-Identifier: Apache-2.0
"""All that one server holds: model, classifiers, queue, limits and what it counts."""

from __future__ import annotations

import time
from collections.abc import Callable

from tf_lwdgh.server.bodies import Bodies
from tf_lwdgh.server.classifiers import Store
from tf_lwdgh.server.limits import Limits
from tf_lwdgh.server.metrics import Metrics
from tf_lwdgh.server.models import AVAILABLE, Models
from tf_lwdgh.server.work import Work


class Service:
    """A server's state; changed in the thread of its event loop only.

    Attributes:
      models: what is served.
      limits: what callers may ask for.
      store: the kept classifiers.
      work: threads for the model, and their queue.
      bodies: reads bodies.
      metrics: what is counted.
      running: requests that are being answered, those for the server's health not counted.
      draining: whether the server is about to end: what runs is answered, new requests are refused.

    Args:
      models: what is served.
      limits: what callers may ask for.
      clock: of the classifiers' age.
    """

    def __init__(self, models: Models, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.models, self.limits = models, limits
        self.store, self.work, self.bodies = Store(limits, clock), Work(limits), Bodies(limits)
        self.metrics = Metrics()
        self.running, self.draining = 0, False
        for name, told, value in (
            ("queue_depth", "Requests that wait for the model.", lambda: self.work.waiting),
            ("model_calls_running", "Requests that the model works on.", lambda: self.work.running),
            ("held_body_bytes", "Bytes of requests' bodies.", lambda: self.bodies.held),
            ("classifiers", "Kept classifiers.", lambda: len(self.store.all())),
            ("classifier_bytes", "Bytes of their tensors.", lambda: self.store.n_bytes),
            ("ready", "1 where the server is ready.", lambda: self.ready),
        ):
            self.metrics.watch(name, told, value)

    @property
    def ready(self) -> bool:
        """Whether new requests are answered."""
        return self.models.state == AVAILABLE and not self.draining
