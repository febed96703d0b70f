# SPDX-License-Identifier: Apache-2.0
"""Examines data sets: every file, record, checksum, label and image."""

from __future__ import annotations

import pathlib
import threading
import time
from typing import Any, TextIO

from tf_lwdgh.data.store import DatasetSpec
from tf_lwdgh.data.store.examination import examine as examine_records
from tf_lwdgh.examinations.report import FAULT, WARNING, counted
from tf_lwdgh.runs.progress import Progress


def examine(folder: str, spec: DatasetSpec, limit: int, stream: TextIO) -> dict[str, Any]:
    """Looks at one data set, and prints what it finds.

    Args:
      folder: of the records.
      spec: their description.
      limit: how many faults, and how many warnings, are shown.
      stream: where to.

    Returns:
      The findings as JSON values.
    """
    start, lock, done = time.monotonic(), threading.Lock(), 0
    stated = sum(spec.images_per_class)
    with Progress(total=stated, tasks_per_step=1, unit="image", every=10.0) as progress:

        def advance(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                progress.advance(count)
                progress.report(tasks_per_second=None, images_per_second=done / (time.monotonic() - start))

        findings = examine_records(folder, spec, limit=limit, progress=advance)
    seconds = time.monotonic() - start
    for line in findings.lines():
        print(line, file=stream)
    print(
        f"{folder}: {done:,} images of {len(spec.images_per_class):,} classes in {seconds:.1f} s "
        f"({done / seconds:,.0f} images/s): {counted(findings.n_faults, FAULT)}, "
        f"{counted(findings.n_warnings, WARNING)}",
        file=stream,
        flush=True,
    )
    about = {"folder": str(pathlib.Path(folder)), "dataset": spec.name, "fingerprint": spec.fingerprint}
    return {**about, "images": done, "seconds": seconds, **findings.as_json()}
