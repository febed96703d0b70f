# SPDX-License-Identifier: Apache-2.0
"""What the entry points share: flags, and errors as one clean message instead of a traceback."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import absl.logging
from absl import flags

from tf_lwdgh import disk_faults

USER_ERROR, DIVERGED, DISK_FAULT, WORKER_LOST, INTERRUPTED = 2, 3, 4, 5, 130
_ADVICE = "Nothing kept before is lost: once it can be written, the same command goes on."
PARENT = "TF_LWDGH_PARENT"  # environment: the process with which this one stops
_LAST_WORDS = 3.0  # seconds in which the others hear from this process whom it has lost, before it is lost too
_GIN_TRACE = re.compile(r"\n\s*In call to configurable.*", re.DOTALL)
_OBJECTS = (  # as Python shows them, with an address or a module, and as gin files name them
    (re.compile(r"<function (?:[\w.<>]+\.)?(\w+) at 0x[0-9a-f]+>"), r"@\1"),
    (re.compile(r"<class '(?:tf_lwdgh|keras)[\w.]*\.(\w+)'>"), r"@\1"),
    (re.compile(r"<(?:[\w.]+\.)?(\w+)(?: object)? at 0x[0-9a-f]+>"), r"@\1()"),
    (re.compile(r" at 0x[0-9a-f]{6,}"), ""),
)

_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")
_CHATTER = re.compile(
    r"^WARNING: All log messages before absl|^I0000 |^I\d{4} |rebuild TensorFlow with|cuInit|"
    r"oneDNN custom operations are on|Could not find cuda drivers"
)


def define_gin_param() -> None:
    """--gin_param."""
    flags.DEFINE_multi_string(
        "gin_param",
        [],
        "A single binding that overrides the files, such as --gin_param='EpisodeConfig.k_shot = 5' "
        "or, for a name in capitals in the gin files, --gin_param='K_SHOT = 5'. Repeatable.",
    )


def define_gin_file() -> None:
    """--gin_file."""
    flags.DEFINE_multi_string(
        "gin_file",
        [],
        "A gin file (see gin/); repeatable, later files win. For a new run or a study they say what it is; "
        "for a run that is there they go on top of its settings, such as gin/learners/baseline_pp.gin, "
        "another learner on what the run has learned.",
    )


def define_run_dir() -> None:
    """--run_dir."""
    flags.DEFINE_string(
        "run_dir",
        None,
        "The folder of a run, which tf_lwdgh.train writes: by default runs/<names of the gin files>, and a "
        "run that is there goes on. The other programs read it.",
    )


def define_checkpoint() -> None:
    """--checkpoint."""
    flags.DEFINE_string("checkpoint", "best", "'best' (by validation accuracy) or 'last'.")


def define_data_dir() -> None:
    """--data_dir."""
    flags.DEFINE_string("data_dir", "data", "The folder that holds a folder of records for each data set.")


MOST_PIXELS = 89_478_485  # Pillow begins to warn there
MAX_PIXELS = "The most pixels, height × width, that an image may have."


def define_max_pixels() -> None:
    """--max_pixels."""
    flags.DEFINE_integer("max_pixels", MOST_PIXELS, MAX_PIXELS)


@contextlib.contextmanager
def clean_errors(program: str) -> Iterator[None]:
    """Turns errors that the user can mend into a message on standard error and an exit code.

    A first Ctrl-C is a KeyboardInterrupt, a second leaves at once; `stop_on_signal` changes the first.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, _interrupt) if in_main else None
    threading.excepthook = _of_thread
    try:
        yield
    except KeyboardInterrupt:
        fail(program, "interrupted", INTERRUPTED)
    except ConnectionAbortedError as error:  # another process of the run is gone
        _print_failure(program, str(error))
        time.sleep(_LAST_WORDS)
        os._exit(WORKER_LOST)  # TensorFlow's own end would wait for it
    except Exception as error:
        found = _mendable(error)
        if found is None:
            raise
        fail(program, *found)
    if in_main:
        signal.signal(signal.SIGINT, before)


def _mendable(error: Exception) -> tuple[str, int] | None:
    """The message and the exit code of an error that the user can mend; None for any other."""
    fault = disk_faults.find(error)
    if fault is not None:
        told = f"{error}\n" if isinstance(error, OSError) and error.errno is None else ""
        return f"{told}{fault}. {_ADVICE}", DISK_FAULT
    if isinstance(error, FloatingPointError):  # training diverged
        return str(error), DIVERGED
    missing = isinstance(error, RuntimeError) and "Required bindings" in str(error)  # gin's
    if isinstance(error, (ValueError, OSError)) or missing:
        return str(error), USER_ERROR
    return None


def _of_thread(args: threading.ExceptHookArgs) -> None:
    """A thread's traceback; not of a disk's fault, which the thread's owner is told and tells."""
    if args.exc_value is None or disk_faults.find(args.exc_value) is None:
        threading.__excepthook__(args)


def _interrupt(*_) -> None:
    signal.signal(signal.SIGINT, _leave)
    raise KeyboardInterrupt


def _leave(*_, stream: int = 2) -> None:
    """Leaves without more ado: a KeyboardInterrupt can come where it is swallowed, or half heard."""
    os.write(stream, b"interrupted\n")
    os._exit(INTERRUPTED)


def fail(program: str, message: str, code: int) -> None:
    """Prints a message on standard error and leaves."""
    try:
        _print_failure(program, message)
    except OSError:  # they go to a file on the disk that is full; the code still tells
        os._exit(code)
    sys.exit(code)


def _print_failure(program: str, message: str) -> None:
    sys.stdout.flush()
    print(f"{program}: {without_call_trace(message)}", file=sys.stderr, flush=True)


def without_call_trace(message: str) -> str:
    """A message without what gin adds of the calls that led to it, and with objects as gin files name them."""
    message = _GIN_TRACE.sub("", message).strip()
    for pattern, shown in _OBJECTS:
        message = pattern.sub(shown, message)
    return message


def command() -> str:
    """The command that started this process, as a line for the shell."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", module.name] if module else sys.argv[:1]
    return shlex.join(["python", *program, *sys.argv[1:]])


def require_flag(name: str, value: object, example: str) -> None:
    """Raises ValueError where a flag is missing."""
    if not value:
        raise ValueError(f"--{name} is missing. Example: {example}")


def start_tensorflow() -> None:
    """Imports TensorFlow without its start-up chatter, and sends the package's log to the terminal."""
    # Somewhere in TensorFlow's import KeyboardInterrupt is swallowed.
    with chatter_dropped() as stream, on_interrupt(lambda *_: _leave(stream=stream)):
        import tensorflow as tf

        tf.config.list_physical_devices()
    absl.logging.set_verbosity(absl.logging.WARNING)
    tf.get_logger().addFilter(_is_no_note_on_tracing)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("tf_lwdgh")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False


def _is_no_note_on_tracing(record: logging.LogRecord) -> bool:
    """Judging several settings traces a graph for each, on purpose."""
    return "triggered tf.function retracing" not in str(record.msg)


@contextlib.contextmanager
def chatter_dropped() -> Iterator[int]:
    """Within it what TensorFlow says as it starts is kept off standard error; gives the true one.

    TensorFlow writes some lines before any of its settings can stop it; those that match _CHATTER
    are dropped, all others are passed on.
    """
    # Of a CPU only trifles are logged as errors (what oneDNN cannot do there); those of a run are raised.
    with_gpu = any(map(os.path.exists, _GPU_DRIVERS))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if with_gpu else "3")
    with tempfile.TemporaryFile() as caught:
        original = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield original
        finally:
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            lines = caught.read().decode(errors="replace").splitlines()
            for line in lines:
                if line.strip() and not _CHATTER.search(line):
                    print(line, file=sys.stderr)


@contextlib.contextmanager
def on_interrupt(handler: Callable[..., object] | int) -> Iterator[None]:
    """Within it Ctrl-C goes to this handler; in a thread that is not the main one, as before.

    Args:
      handler: see signal.signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def stop_on_signal() -> Callable[[], bool]:
    """Whether Ctrl-C or a TERM signal has come; a second Ctrl-C stops at once.

    Where the environment names a parent (TF_LWDGH_PARENT), also whether that process is gone.
    """
    seen: list[int] = []
    parent = os.environ.get(PARENT)

    def handler(number: int, _frame) -> None:
        signal.signal(signal.SIGINT, _leave)
        seen.append(number)
        # Not print: the signal may have come within one.
        os.write(2, b"\nstopping at the end of this window; once more to stop at once\n")

    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    return lambda: bool(seen) or (parent is not None and os.getppid() != int(parent))
