# SPDX-License-Identifier: Apache-2.0
"""A run folder that several processes share: the first holds it for all of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tf_lwdgh.outer.workers import Workers
from tf_lwdgh.runs.run_lock import run_lock


@contextlib.contextmanager
def held_for_all(run_dir: str | os.PathLike[str], workers: Workers) -> Iterator[None]:
    """Holds a run folder while all processes of a run train in it, and makes it if need be.

    Raises:
      ValueError: another run's process holds it, or not all processes see it.
    """
    with run_lock(run_dir) if workers.is_chief else contextlib.nullcontext():
        workers.any(False)  # the first has made it
        seen = os.path.isdir(run_dir)
        if workers.any(not seen):
            raise ValueError(
                "--run_dir must be one folder that all processes of the run see, such as on a network "
                f"file system. Received: {os.fspath(run_dir)!r}, which "
                f"{'another of them' if seen else 'this one'} does not see."
            )
        yield
