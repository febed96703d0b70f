# SPDX-License-Identifier: Apache-2.0
"""Writes event files for TensorBoard: one folder is one of its runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as charts_metadata
from tensorboard.plugins.histogram import summary as histogram_summary
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util


class Events:
    """An event file of its own in a folder, which is made. A context manager."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._file = EventFileWriter(os.fspath(folder))

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def started(self, step: int) -> None:
        """Says that a run begins here: at the second time and after, what is at its step or later is dropped."""
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(step, session_log=start)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by tag."""
        summary = summary_pb2.Summary()
        for tag, value in values.items():
            metadata = scalar_metadata.create_summary_metadata("", "")
            tensor = tensor_util.make_tensor_proto(np.float32(value))
            summary.value.add(tag=tag, tensor=tensor, metadata=metadata)
        self._add(step, summary=summary)

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Histograms of all the values of each array."""
        for tag, array in values.items():
            self._add(step, summary=histogram_summary.histogram_pb(tag, array, buckets=30))

    def image(self, step: int, tag: str, png: bytes, size: tuple[int, int]) -> None:
        """A PNG of (width, height) pixels."""
        metadata = image_metadata.create_summary_metadata("", "", converted_to_tensor=False)
        self._add_bytes(step, tag, [str(size[0]).encode(), str(size[1]).encode(), png], metadata)

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Markdown."""
        metadata = text_metadata.create_summary_metadata("", "")
        self._add_bytes(step, tag, markdown.encode(), metadata)

    def charts(self, layout: layout_pb2.Layout) -> None:
        """The Custom Scalars page."""
        metadata = charts_metadata.create_summary_metadata()
        self._add_bytes(0, charts_metadata.CONFIG_SUMMARY_TAG, layout.SerializeToString(), metadata)

    def hparams(self, values: Mapping[str, bool | int | float | str], run_name: str) -> None:
        """What a run is, for the HParams page."""
        self._add(0, summary=hparams_api.hparams_pb(dict(values), trial_id=run_name))

    def flush(self) -> None:
        """Hands everything to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def _add_bytes(self, step: int, tag: str, content: bytes | list[bytes], metadata) -> None:
        tensor = tensor_util.make_tensor_proto(np.array(content, dtype=object))
        summary = summary_pb2.Summary()
        summary.value.add(tag=tag, tensor=tensor, metadata=metadata)
        self._add(step, summary=summary)

    def _add(self, step: int, **content) -> None:
        self._file.add_event(event_pb2.Event(wall_time=time.time(), step=step, **content))
