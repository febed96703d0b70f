# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a run: a bar on a terminal, a plain line an interval elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm


class Progress:
    """Shows how far a run has come. A context manager.

    Args:
      total: steps of the whole run.
      done: steps already done.
      tasks_per_step: tasks in a step.
      unit: what a step is called.
      every: seconds at least between two plain lines.
      stream: where to; standard error by default.
    """

    def __init__(
        self, *, total: int, done: int = 0, tasks_per_step: int, unit: str = "step",
        every: float = 0.0, stream: TextIO | None = None,
    ) -> None:  # fmt: skip
        self._stream = stream or sys.stderr
        self._total, self._done, self._unit = total, done, unit
        self._tasks_per_step = tasks_per_step
        self._every, self._next_line = every, 0.0
        self._bar = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total, initial=done, unit=unit, file=self._stream, dynamic_ncols=True,
                smoothing=0.05,
                bar_format="{l_bar}{bar}| {n}/{total} [{elapsed}<{remaining}{postfix}]",
            )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, steps: int = 1) -> None:
        """Counts steps."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)

    def report(self, *, tasks_per_second: float | None, **values: float) -> None:
        """Shows values at the present step: rates in [0, 1] named '…accuracy' as per cent.

        Args:
          tasks_per_second: the speed, which also gives the time left; None while it is unknown.
          **values: by name.
        """
        shown = [f"{name.replace('_', ' ')} {_show(name, v)}" for name, v in values.items()]
        if tasks_per_second:
            shown.append(f"{tasks_per_second:.1f} tasks/s")
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(shown))
            return
        if time.monotonic() < self._next_line and self._done < self._total:
            return
        self._next_line = time.monotonic() + self._every
        if tasks_per_second:
            left = (self._total - self._done) * self._tasks_per_step / tasks_per_second
            shown.append(f"{duration(left)} left")
        self.note(f"{self._unit} {self._done}/{self._total}: {', '.join(shown)}")

    def note(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)


class StepClock:
    """Tasks a second while training: the first step (tracing) and pauses do not count."""

    def __init__(self, tasks_per_step: int) -> None:
        self._tasks_per_step = tasks_per_step
        self._since: float | None = None
        self._steps = 0

    def start(self) -> None:
        """Starts a stretch; what came before and was not read does not count."""
        self._since, self._steps = time.perf_counter(), 0

    def count(self, steps: int) -> None:
        """Adds steps to the stretch."""
        self._steps += steps

    def tasks_per_second(self) -> float | None:
        """The speed since `start`; None without a step."""
        if self._since is None or not self._steps:
            return None
        return self._steps * self._tasks_per_step / (time.perf_counter() - self._since)


def duration(seconds: float) -> str:
    """Such as '1:02:03' or '4:05'."""
    hours, rest = divmod(int(round(seconds)), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _show(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if name.endswith("accuracy") else f"{value:.3f}"
