# SPDX-License-Identifier: Apache-2.0
"""Where a study stands while it runs: lines on the terminal, and progress.html, which renews itself."""

from __future__ import annotations

import html
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tf_lwdgh import files
from tf_lwdgh.runs.progress import duration
from tf_lwdgh.runs.summaries import METRICS_FILE
from tf_lwdgh.studies import pages, results
from tf_lwdgh.studies.checks import Expected
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.studies.results import Result

PAGE = "progress.html"
_TAIL = 1 << 17  # bytes of metrics.jsonl in which its last lines are looked for
_RECENT = 9  # windows, whose median speed counts: one in which the machine slept does not
_LINE_EVERY, _PAGE_EVERY = 30.0, 5.0  # seconds


class Board:
    """Keeps count of jobs.

    Args:
      title: the study's.
      expected: what every job will come to.
      done: those that have their result already.
      at_once: how many jobs run side by side.
      out: the study's folder.
      stream: where lines go; standard error by default.
    """

    def __init__(
        self, title: str, expected: Mapping[Job, Expected], done: Mapping[Job, Result], *,
        at_once: int, out: str, stream: TextIO | None = None,
    ) -> None:  # fmt: skip
        self.title, self.at_once = title, at_once
        self.steps: dict[Job, int] = {}
        self._tasks: dict[Job, int] = {}
        for job, coming in expected.items():
            self.expect(job, coming)
        self.done = dict(done)
        self.running: dict[Job, None] = {}  # in order
        self._path = os.path.join(out, PAGE)
        self._stream = stream or sys.stderr
        self._next_line, self._next_page = 0.0, 0.0

    def expect(self, job: Job, expected: Expected) -> None:
        """A job more."""
        self.steps[job], self._tasks[job] = expected.steps, expected.tasks_per_step

    def started(self, job: Job) -> None:
        """A job begins."""
        self.running[job] = None

    def ended(self, job: Job, result: Result | None) -> None:
        """A job came to an end; None: it was stopped and can be gone on with."""
        self.running.pop(job, None)
        if result is not None:
            self.done[job] = result
            self.say(f"{job.name}: {outcome(result)}")

    def say(self, line: str) -> None:
        """A line on the terminal."""
        print(line, file=self._stream, flush=True)

    def watch(self, *, at_end: bool = False) -> None:
        """Renews the page, and says a line now and then."""
        now = time.monotonic()
        if now >= self._next_page or at_end:
            self._next_page = now + _PAGE_EVERY
            files.write(self._path, self.page(at_end=at_end), durable=False)
        if now >= self._next_line and self.running and not at_end:
            self._next_line = now + _LINE_EVERY
            self.say(self.line())

    def line(self) -> str:
        """Such as '3 of 33 done, 0:41:10 left · running: LWDGH, seed 0 (400 of 1000)'."""
        running = ", ".join(f"{j.name} ({_step(j)} of {self.steps[j]})" for j in list(self.running))
        left = self.seconds_left()
        about = f", {duration(left)} left" if left is not None else ""
        return f"{len(self.done)} of {len(self.steps)} jobs done{about} · running: {running or 'none'}"

    def seconds_left(self) -> float | None:
        """By the speed of what has run so far; None before there is any."""
        speeds = {j: s for j in self.steps if (s := self._seconds_per_step(j))}
        if not speeds:
            return None
        by_method: dict[tuple[str, str], float] = {(j.setting, j.method): s for j, s in speeds.items()}
        usual = sum(speeds.values()) / len(speeds)
        seconds = 0.0
        for job, steps in self.steps.items():
            if job not in self.done:
                ahead = max(steps - _step(job), 0)
                seconds += ahead * by_method.get((job.setting, job.method), usual)
        return seconds / self.at_once

    def _seconds_per_step(self, job: Job) -> float | None:
        if job in self.done:
            return self.done[job].measured.get("seconds_per_step")
        if job not in self.running:
            return None
        speeds = [s for line in _last_lines(job) if (s := line.get("speed/tasks_per_second"))]
        return self._tasks[job] / statistics.median(speeds) if speeds else None

    def page(self, *, at_end: bool = False) -> str:
        """The page: how much is done, what runs, what each job came to."""
        left = self.seconds_left()
        rows = [(j.name, self._state(j)) for j in self.steps]
        body = [
            f"<p>{len(self.done)} of {len(self.steps)} jobs are done"
            + (f", about {duration(left)} left" if left is not None and not at_end else "")
            + f". <a href='report.html'>Report so far</a>. {time.strftime('%Y-%m-%d %H:%M:%S')}</p>",
            f"<progress max='{len(self.steps)}' value='{len(self.done)}'></progress>",
            "<table><tr><th>job</th><th>state</th></tr>",
            *(f"<tr><td>{html.escape(n)}</td><td>{html.escape(s)}</td></tr>" for n, s in rows),
            "</table>",
        ]
        return pages.document(self.title, "\n".join(body), refresh=None if at_end else 5)

    def _state(self, job: Job) -> str:
        if job in self.done:
            return outcome(self.done[job])
        step = _step(job)
        if job in self.running:
            return f"running, step {step} of {self.steps[job]}"
        return f"stopped at step {step} of {self.steps[job]}" if step else "waiting"


def outcome(result: Result) -> str:
    """What a job came to, in a few words."""
    if result.state == results.DONE:
        return f"{100 * result.accuracies.mean():.2f} % accuracy over {len(result.accuracies)} tasks"
    last = result.message.strip().splitlines()[-1:] or [""]
    return f"{result.state}: {last[0]}"


def _step(job: Job) -> int:
    lines = _last_lines(job)
    return int(lines[-1]["step"]) if lines else 0


def _last_lines(job: Job) -> list[dict]:
    """The last whole lines of a run's metrics; [] where there is none."""
    try:
        with open(os.path.join(job.run_dir, METRICS_FILE), "rb") as file:
            file.seek(0, os.SEEK_END)
            cut = max(0, file.tell() - _TAIL)
            file.seek(cut)
            lines = file.read().split(b"\n")[bool(cut) : -1]
        return [json.loads(line) for line in lines[-_RECENT:]]
    except (OSError, ValueError):
        return []
