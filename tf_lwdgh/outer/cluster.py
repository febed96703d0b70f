# SPDX-License-Identifier: Apache-2.0
"""The processes of a run with strategy 'multi_worker': who they are, and what happens when one is lost.

Each runs the whole program with the same settings. Who takes part is in the environment: TF_CONFIG, as
TensorFlow defines it and as Kubernetes' training operators set it, or the variables of a Slurm step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import re
import signal
from collections.abc import Iterator

import tensorflow as tf

from tf_lwdgh import command_line, config

JOBS = ("chief", "worker")
# What the gRPC layer and the coordination service say of the process that is lost.
_PEER = re.compile(r"(?:remote target|reported from) /job:(\w+)(?:/replica:\d+)?/task:(\d+)")
_LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
    tf.errors.FailedPreconditionError,
)  # fmt: skip
_log = logging.getLogger(__name__)


class WorkerLost(ConnectionAbortedError):
    """Another process of the run is gone; what was saved is intact."""


@config.configurable
@dataclasses.dataclass(frozen=True)
class MultiWorker:
    """How the processes of strategy 'multi_worker' find each other and how long they wait.

    Attributes:
      timeout: seconds that a process waits for the others within a step, > 0. More than a checkpoint, which
        the first writes while the others wait, and the building of the graph take.
      slurm_port: the port of the first process on a machine under Slurm, the others' follow; two jobs
        that share machines need different ones. In TF_CONFIG the ports are in the addresses.
    """

    timeout: float = 600.0
    slurm_port: int = 8888

    def __post_init__(self) -> None:
        if not 0 < self.timeout < float("inf"):
            raise ValueError(
                f"MultiWorker.timeout must be > 0 and finite. Received: MultiWorker.timeout = {self.timeout!r}."
            )
        if not 0 < self.slurm_port < 65536:
            raise ValueError(
                f"MultiWorker.slurm_port must be in 1 to 65535. Received: MultiWorker.slurm_port = {self.slurm_port!r}."
            )


@dataclasses.dataclass(frozen=True)
class Place:
    """The processes and which of them this is.

    Attributes:
      jobs: the addresses, host:port, of each job's processes.
      job: this process's.
      index: its number within the job.
    """

    jobs: dict[str, tuple[str, ...]]
    job: str
    index: int

    @property
    def names(self) -> list[str]:
        """A name for each process, such as 'worker 1', in the order of their replicas."""
        return [f"{job} {i}" for job in JOBS for i in range(len(self.jobs.get(job, ())))]

    @property
    def number(self) -> int:
        """Where this process is in `names`."""
        return self.names.index(f"{self.job} {self.index}")


def place(settings: MultiWorker) -> Place:
    """Reads the environment: TF_CONFIG, or without it that of a Slurm step.

    Raises:
      ValueError: it names no cluster, or one that this process has no part in.
    """
    if os.environ.get("TF_CONFIG"):
        return _from_tf_config(os.environ["TF_CONFIG"])
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return _from_slurm(settings.slurm_port)
    raise ValueError(
        "Experiment.strategy = 'multi_worker' needs a cluster: TF_CONFIG in the environment of each "
        'process, such as \'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": '
        '"worker", "index": 0}}\', or a Slurm step (srun). Received: neither. On one machine take '
        "'default' or 'mirrored'."
    )


def _from_tf_config(text: str) -> Place:
    try:
        told = json.loads(text)
        jobs = {job: tuple(map(str, told["cluster"][job])) for job in JOBS if job in told["cluster"]}
        found = Place(jobs, told["task"]["type"], int(told["task"]["index"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "TF_CONFIG must be JSON with the addresses in 'cluster' and this process in 'task', by "
            f"'type' and 'index'. Received: TF_CONFIG = {text!r} ({type(error).__name__}: {error})."
        ) from error
    if f"{found.job} {found.index}" not in found.names:
        raise ValueError(
            f"TF_CONFIG: this process must be one of {', '.join(found.names) or 'the cluster'}; those that "
            "evaluate or serve parameters have no part in a run. "
            f"Received: task {found.job} {found.index}."
        )
    return found


def _from_slurm(port: int) -> Place:
    """A process finds itself by its machine and its number there, however Slurm deals the ranks out."""
    names = ("SLURMD_NODENAME", "SLURM_LOCALID", "SLURM_PROCID", "SLURM_STEP_NODELIST")
    missing = [n for n in (*names, "SLURM_STEP_TASKS_PER_NODE") if n not in os.environ]
    if missing:
        raise ValueError(
            "Experiment.strategy = 'multi_worker' under Slurm needs the variables that srun sets for each "
            f"process. Received: {', '.join(missing)} not set."
        )
    # One GPU a process, so that it counts the processes; Slurm itself says which GPUs each may see.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=port, gpus_per_node=2**20, gpus_per_task=1, auto_set_gpu=False
    )
    workers = tuple(resolver.cluster_spec().as_dict()["worker"])
    own = f"{os.environ['SLURMD_NODENAME']}:{port + int(os.environ['SLURM_LOCALID'])}"
    if own not in workers:
        raise ValueError(
            f"the Slurm step must have this process among its own. Received: {own}, not one of {', '.join(workers)}."
        )
    return Place({"worker": workers}, "worker", workers.index(own))


@functools.cache
def connect() -> tf.distribute.Strategy:
    """Waits for all processes and joins them. Must come before TensorFlow's first operation.

    Raises:
      ValueError: the environment names no cluster.
    """
    settings = MultiWorker()
    here = place(settings)
    _log.info(
        "%s of %d processes, at %s: waiting for the others …",
        here.names[here.number], len(here.names), here.jobs[here.job][here.index],
    )  # fmt: skip
    gpus = len(tf.config.list_physical_devices("GPU"))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({job: list(found) for job, found in here.jobs.items()}),
        task_type=here.job, task_id=here.index, rpc_layer="grpc", num_accelerators={"GPU": gpus},
    )  # fmt: skip
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=settings.timeout)
    # While TensorFlow waits for the others, Python's own handler of Ctrl-C is never reached.
    with command_line.on_interrupt(signal.SIG_DFL):
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, communication_options=options)


@contextlib.contextmanager
def losses_said() -> Iterator[None]:
    """Turns what TensorFlow raises when another process is gone into one line that says which.

    Raises:
      WorkerLost: one is gone, or did not answer in time.
    """
    try:
        yield
    except tf.errors.DeadlineExceededError as error:
        if not _joined():
            raise
        raise WorkerLost(
            f"another process has not answered for {MultiWorker().timeout:g} seconds (MultiWorker.timeout). {_ADVICE}"
        ) from error
    except _LOST as error:
        if not _joined():
            raise
        peer = _PEER.search(str(error))  # the first that is named is the one that was lost
        name = f"{peer[1]} {peer[2]}" if peer else "another process"
        raise WorkerLost(f"{name} is gone. {_ADVICE}") from error


def _joined() -> bool:
    """Whether this process has waited for others; else an error has nothing to do with them."""
    return connect.cache_info().currsize > 0


_ADVICE = "Start all processes again with the same command: the run goes on from its last checkpoint."
