# SPDX-License-Identifier: Apache-2.0
"""What a server allows its callers: sizes, numbers and times."""

from __future__ import annotations

import dataclasses
from typing import Any

MEBI = 1 << 20


def _limit(default: Any, told: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": told})


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits, each a flag of tf_lwdgh.serve; what each is for stands beside it.

    Raises:
      ValueError: one of them is not above 0.
    """

    max_body_bytes: int = _limit(32 * MEBI, "Bytes of a request's body, counted as they come. Beyond: 413.")
    max_held_bytes: int = _limit(256 * MEBI, "Bytes of all bodies that are held at once. Beyond: 429.")
    max_images: int = _limit(1_000, "Images of a request, and files of a form. Beyond: 413.")
    max_pixels: int = _limit(
        25_000_000, "Width × height of an encoded image, by its header; a GIF's over all its frames. "
        "Beyond: 413.",
    )  # fmt: skip
    max_request_pixels: int = _limit(250_000_000, "Pixels of all encoded images of a request. Beyond: 413.")
    model_threads: int = _limit(2, "Calls of the model at once.")
    max_queue: int = _limit(32, "Requests that wait for the model. Beyond: 429.")
    read_timeout: float = _limit(
        30.0, "Seconds in which a request's head, then its body, must have come. Beyond: closed, 408."
    )
    request_timeout: float = _limit(
        60.0, "Seconds from a body's end to the answer, the time in the queue included. Beyond: 504."
    )
    drain_timeout: float = _limit(
        30.0, "Seconds that running requests have after SIGTERM or Ctrl-C, before the server ends."
    )
    max_connections: int = _limit(1_000, "Connections at once. Beyond: 503.")
    max_classifiers: int = _limit(100, "Kept classifiers. Beyond: the one that was used longest ago goes.")
    max_classifier_bytes: int = _limit(1024 * MEBI, "Bytes of all kept classifiers' tensors. Beyond: as above.")
    classifier_ttl: float = _limit(86_400.0, "Seconds after which a kept classifier goes, however often it is used.")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"--{field.name} must be above 0. Received: {value}.")
