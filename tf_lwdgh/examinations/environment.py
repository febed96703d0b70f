# SPDX-License-Identifier: Apache-2.0
"""Examines the installation: Python, packages, oneDNN, devices, memory, threads and extras."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import platform
import sys

import tensorflow as tf
from packaging.specifiers import SpecifierSet

from tf_lwdgh import __version__, config, versions
from tf_lwdgh.examinations.report import Report
from tf_lwdgh.outer.threads import cores

_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tf-nightly")  # the same by other names
_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# What of a CPU's abilities matters to the convolutions, by its name in /proc/cpuinfo.
_ABILITIES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX512-VNNI", "amx_bf16": "AMX"}
_LITTLE = 2.0  # GiB


def examine() -> Report:
    """Looks at what this process runs on and with."""
    report = Report("environment")
    _python(report)
    for name, versions_taken in versions.RANGES.items():
        _package(report, name, versions_taken)
    _gin_files(report)
    _one_dnn(report)
    _cpu(report)
    _gpus(report)
    _memory(report)
    for extra, packages in versions.EXTRAS.items():
        _extra(report, extra, packages)
    return report


def _python(report: Report) -> None:
    version, where = platform.python_version(), f"{sys.executable}, {platform.system()} {platform.machine()}"
    if SpecifierSet(versions.PYTHON).contains(version, prereleases=True):
        report.ok(f"tf_lwdgh {__version__} on Python {version} ({where})")
        return
    report.fault(
        f"Python must be {versions.PYTHON}. Received: {version} ({where}).",
        "make a new environment: python3.12 -m venv .venv, and install the package there",
    )


def installed(name: str) -> str | None:
    """The version of a package that is installed; None: it is not."""
    for known in _TENSORFLOWS if name == "tensorflow" else (name,):
        try:
            return importlib.metadata.version(known)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _package(report: Report, name: str, taken: str) -> None:
    found, mend = installed(name), f"{sys.executable} -m pip install '{name}{taken}'"
    if found is None:
        report.fault(f"the package {name} is not installed.", mend)
    elif SpecifierSet(taken).contains(found, prereleases=True):
        report.ok(f"{name} {found}")
    else:
        report.fault(f"{name} must be {taken}. Received: {found}.", mend)


def _gin_files(report: Report) -> None:
    count = len(config.available())
    if count:
        report.ok(f"{count} gin files in {config.GIN_FOLDER}")
    else:
        report.fault(
            f"there are no gin files in {config.GIN_FOLDER}: the installation is not whole.",
            f"{sys.executable} -m pip install --force-reinstall --no-deps <where the package came from>",
        )


def _one_dnn(report: Report) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        return
    setting = os.environ.get(_ONEDNN)
    if setting == "0":
        report.warn(f"oneDNN's kernels are off ({_ONEDNN}=0): a step takes longer on most CPUs.", f"unset {_ONEDNN}")
    else:
        report.ok(f"oneDNN's kernels are on ({_ONEDNN}={setting})")


def _cpu(report: Report) -> None:
    model, flags = _cpu_info()
    can = [said for flag, said in _ABILITIES.items() if flag in flags]
    usable, whole = cores(), os.cpu_count() or 1
    share = f"{usable} of {whole} cores" if usable < whole else f"{whole} core{'s' * (whole > 1)}"
    report.ok(f"{share}, {model}{': ' if can else ''}{', '.join(can)}")
    if "amx_bf16" in flags:
        report.note("this CPU has AMX: --gin_file=precision/bfloat16 on top of an experiment makes it faster.")
    elif flags and "avx2" not in flags:
        report.warn("this CPU has no AVX2: TensorFlow's kernels are slow on it.")
    set_ones = [f"{n}={os.environ[n]}" for n in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS") if n in os.environ]
    if set_ones:
        report.note(f"threads are set from outside ({', '.join(set_ones)}); Threads.intra_op is the run's own.")


def _cpu_info() -> tuple[str, set[str]]:
    """The CPU's name and abilities, where the system tells them."""
    told: dict[str, str] = {}
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                told.setdefault(name.strip(), value.strip())
    name = told.get("model name") or platform.processor() or platform.machine()
    return name, set(told.get("flags", "").split())


def _gpus(report: Report) -> None:
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        about = tf.config.experimental.get_device_details(gpu)
        report.ok(f"{gpu.name.removeprefix('/physical_device:')}: {about.get('device_name', 'a GPU')}")
    if gpus:
        return
    if glob.glob("/dev/nvidia[0-9]*"):
        report.warn(
            "this machine has an NVIDIA GPU that TensorFlow does not see: everything runs on the CPU.",
            f"{sys.executable} -m pip install 'tf_lwdgh[gpu]', and see that nvidia-smi lists the GPU",
        )
    else:
        report.note("no GPU: everything runs on the CPU")


def _memory(report: Report) -> None:
    if not os.path.exists("/proc/meminfo"):
        return
    with open("/proc/meminfo", encoding="utf-8") as file:
        kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in file)}
    total, free = (kilobytes.get(name, 0) / 2**20 for name in ("MemTotal", "MemAvailable"))
    said = f"{free:.1f} of {total:.1f} GiB of memory are free"
    if free < _LITTLE:
        report.warn(
            f"{said}: a training may be ended by the system.",
            "end what else runs; --gin_param=\"InnerLoop.memory = 'recompute'\" and a smaller META_BATCH_SIZE "
            "take less",
        )
    else:
        report.ok(said)


def _extra(report: Report, extra: str, packages: dict[str, str]) -> None:
    if any(installed(name) is None for name in packages):
        report.note(f"not installed: the extra [{extra}] ({', '.join(packages)})", f"pip install 'tf_lwdgh[{extra}]'")
        return
    for name, taken in packages.items():
        _package(report, name, taken)
