# SPDX-License-Identifier: Apache-2.0
"""A profile of a few meta-steps of a run, for the Profile tab of TensorBoard."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

EVENT = "meta_step"  # what a step is called in the profile
_FIRST, _COUNT = 10, 5  # steps of a run that are left alone, steps that are profiled


def choose_steps(done: int, total: int) -> range:
    """The steps to profile: five after the first ten, or the last five; never the first.

    A run's first step, which builds the graph, would bury all others.

    Args:
      done: meta-steps that were done before this run began.
      total: meta-steps at its end.

    Returns:
      Meta-steps, counted from 0.

    Raises:
      ValueError: fewer than two steps are left.
    """
    left = total - done
    if left < 2:
        advice = "Take another --run_dir." if done else "Set more OuterLoop.epochs."
        raise ValueError(
            "--profile needs at least two steps, since the first, which builds the graph, is left "
            f"out. {left} of {total} are left. {advice}"
        )
    first = done + max(1, min(_FIRST, left - _COUNT))
    return range(first, min(first + _COUNT, total))


class Profiler:
    """Profiles some steps of a run. A context manager; its end ends a profile under way.

    What lies between the steps, such as a validation, is in the profile as well, but in no step.

    Args:
      run_dir: the run's folder; TensorBoard finds a profile only beside events.
      steps: the meta-steps, counted from 0; none: does nothing.
      note: is told where the profile lies.
    """

    def __init__(
        self, run_dir: str | os.PathLike[str], steps: range, note: Callable[[str], None]
    ) -> None:
        self.steps = steps
        self._run_dir, self._note = os.fspath(run_dir), note
        self._running = False
        self._end = steps.start  # the step after the last that was profiled

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Wraps one meta-step and the making of its meta-batch.

        Args:
          number: counted from 0; the profile calls it number + 1, as the run's log does.
        """
        if number not in self.steps:
            yield
            return
        if not self._running:
            tf.test.experimental.sync_devices()  # the steps before stay out of it
            tf.profiler.experimental.start(self._run_dir)
            self._running = True
        with tf.profiler.experimental.Trace(EVENT, step_num=number + 1, _r=1):
            yield
        self._end = number + 1
        if self._end == self.steps.stop:
            tf.test.experimental.sync_devices()
            self._stop()

    def _stop(self) -> None:
        """Stops the profiler and writes what it has; a failure to write does not end the run."""
        if not self._running:
            return
        self._running = False
        try:
            tf.profiler.experimental.stop(save=self._end > self.steps.start)
        except tf.errors.OpError as error:
            self._note(f"the profile could not be written: {error}")
            return
        folder = os.path.join(glob.escape(self._run_dir), "plugins", "profile")
        written = glob.glob(os.path.join(folder, "*"))
        if self._end > self.steps.start and written:
            self._note(
                f"steps {self.steps.start + 1} to {self._end} are profiled in "
                f"{max(written, key=os.path.getmtime)}; tensorboard --logdir={self._run_dir} shows "
                "it under Profile (needs: pip install xprof)."
            )
