# SPDX-License-Identifier: Apache-2.0
"""Jobs as tasks of Ray, on this machine or on a cluster whose nodes share the study's folder.

A task trains and judges in processes of its own (studies/worker.py). Where its worker is killed, Ray
starts the task again elsewhere; the training process, whose parent is gone, saves at the end of its
window, and the new task goes on from there. A result that is there by then is not made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from types import ModuleType

from tf_lwdgh.outer.threads import cores
from tf_lwdgh.studies import results, worker
from tf_lwdgh.studies.jobs import Job
from tf_lwdgh.studies.results import Result
from tf_lwdgh.studies.worker import Stop

_MARK = ".ray_task"  # in a run's folder: which submission began last
_WATCH, _POLL = 1.0, 0.2  # seconds
_OBJECTS = 80 * 2**20  # bytes of a local Ray's object store: results are small
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What Ray has for the jobs.

    Attributes:
      at_once: jobs side by side.
      cores_per_job: cores of each.
      gpus_per_job: 1 where the cluster has GPUs, else 0.
    """

    at_once: int
    cores_per_job: int
    gpus_per_job: int


@contextlib.contextmanager
def connect(address: str | None, *, cores_per_job: int) -> Iterator[Cluster]:
    """Starts a Ray on this machine or joins a cluster; leaves it at the end.

    Args:
      address: None: start one on all cores of this machine; 'auto' or host:port: a running cluster.
      cores_per_job: cores that a job takes.

    Raises:
      ValueError: Ray is not installed, no node has so many cores, or cores_per_job is below 1.
      ConnectionError: there is no cluster at the address.
    """
    if isinstance(cores_per_job, bool) or cores_per_job < 1:
        raise ValueError(f"--cores_per_job must be at least 1. Received: --cores_per_job={cores_per_job}.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what is started here reports to nobody
    ray = _ray()
    own = {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": _OBJECTS}
    variables = {"PYTHONPATH": worker.environment()["PYTHONPATH"]}
    with _signals_kept():
        ray.init(
            address=address or "local", log_to_driver=False, logging_level="ERROR",
            runtime_env={"env_vars": variables}, **({} if address else own),
        )  # fmt: skip
    try:
        yield _measure(ray, cores_per_job)
    finally:
        ray.shutdown()


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "--executor=ray needs Ray, which is not installed: pip install 'tf_lwdgh[ray]', or in a "
            "clone: .venv/bin/pip install -r requirements.txt."
        ) from error
    return ray


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own in the place of what Ctrl-C and TERM do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _measure(ray: ModuleType, cores_per_job: int) -> Cluster:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
    room = [int(node.get("CPU", 0)) // cores_per_job for node in nodes]
    if gpus:
        room = [min(n, int(node.get("GPU", 0))) for n, node in zip(room, nodes)]
    if not sum(room):
        most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
        raise ValueError(
            f"--cores_per_job must be at most the cores of a node{' with a GPU' * gpus}; the largest "
            f"node has {most}. Received: --cores_per_job={cores_per_job}."
        )
    return Cluster(sum(room), cores_per_job, gpus)


def run(
    jobs: Mapping[Job, int],
    *,
    cluster: Cluster,
    started: Callable[[Job], None],
    ended: Callable[[Job, Result | BaseException], Mapping[Job, int] | None],
    watch: Callable[[], None],
    stop: Stop,
) -> None:
    """Runs jobs, as many at once as the cluster has room for.

    Args:
      jobs: the meta-steps of each.
      cluster: of `connect`.
      started: is told of each job that begins.
      ended: is told what came of it, a result or what was raised; it may give further jobs.
      watch: is called about once a second.
      stop: ends it early.
    """
    ray = _ray()
    tasks = _Tasks(ray, cluster, jobs)
    while tasks.waiting:
        done, _ = ray.wait(list(tasks.waiting), timeout=_WATCH)
        for job in tasks.begun():
            started(job)
        for reference in done:
            job = tasks.waiting.pop(reference)
            tasks.submit(ended(job, _came(ray, reference)) or {})
        tasks.pass_on(stop)
        watch()


class _Tasks:
    """The tasks that are not over: submitted, begun, told to stop."""

    def __init__(self, ray: ModuleType, cluster: Cluster, jobs: Mapping[Job, int]) -> None:
        self._ray, self._cluster = ray, cluster
        self.waiting: dict = {}  # reference -> job
        self._unseen: dict[Job, str] = {}  # job -> the token of its submission
        self._told = 0  # how often Ctrl-C was passed on
        self.submit(jobs)

    def submit(self, jobs: Mapping[Job, int]) -> None:
        """Adds tasks. Ray starts one again when its worker is lost, not when it fails."""
        task = self._ray.remote(
            num_cpus=self._cluster.cores_per_job, num_gpus=self._cluster.gpus_per_job,
            max_retries=-1, retry_exceptions=False,
        )(_train_and_judge)  # fmt: skip
        for job, steps in jobs.items():
            token = uuid.uuid4().hex
            known = _content(job.result_path)
            reference = task.remote(job, steps, self._cluster.cores_per_job, token, known)
            self.waiting[reference] = job
            self._unseen[job] = token

    def begun(self) -> list[Job]:
        """The jobs whose task has begun since the last call."""
        found = [job for job, token in self._unseen.items() if _content(_mark(job)) == token]
        for job in found:
            del self._unseen[job]
        return found

    def pass_on(self, stop: Stop) -> None:
        """Cancels the tasks where `stop` asks for it: the first time they save, the second they end."""
        asked = stop.asked.is_set() + (stop.asked.is_set() and stop.at_once.is_set())
        while self._told < asked:
            self._told += 1
            for reference in self.waiting:
                self._ray.cancel(reference)


def _came(ray: ModuleType, reference) -> Result | BaseException:
    """A task's result, or what it raised."""
    try:
        return ray.get(reference) or worker.Stopped()
    except ray.exceptions.TaskCancelledError:
        return worker.Stopped()
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, Exception) else error
    except ray.exceptions.RayError as error:
        return error


def _train_and_judge(job: Job, steps: int, threads: int, token: str, known: str | None) -> Result | None:
    """The task: the job's result, or None where it was stopped.

    Args:
      job: the job.
      steps: meta-steps that it must come to.
      threads: operations at once.
      token: of this submission.
      known: what stood in the result's file before it.
    """
    if _content(job.result_path) != known:  # an earlier worker of this task was lost after it was done
        return results.read(job.result_path)
    os.makedirs(job.run_dir, exist_ok=True)
    with open(_mark(job), "w", encoding="utf-8") as file:
        file.write(token)
    stop = Stop()
    with futures.ThreadPoolExecutor(max_workers=1) as pool:  # the main thread takes cancellations
        future = pool.submit(worker.run, job, steps, threads=threads, stop=stop)
        try:
            return _wait(future, stop)
        except worker.Stopped:
            return None
        finally:
            stop.asked.set()


def _wait(future: futures.Future[Result], stop: Stop) -> Result:
    while True:
        try:
            while not future.done():
                futures.wait([future], timeout=_POLL)
            return future.result()
        except KeyboardInterrupt:
            (stop.at_once if stop.asked.is_set() else stop.asked).set()


def _mark(job: Job) -> str:
    return os.path.join(job.run_dir, _MARK)


def _content(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
