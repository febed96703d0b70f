# SPDX-License-Identifier: Apache-2.0
"""Few-shot meta-learning in TensorFlow with layer-wise dynamic gradient harmonization (LWDGH).

From Python, `import tf_lwdgh as fs` offers `fs.train`, `fs.load_run`, `fs.export` and `fs.load_exported`
(docs/python.md). TensorFlow is imported when one of them is first asked for.
"""

import importlib
import os
import platform
import sys
import types
import typing

__version__ = "0.1.0"

if typing.TYPE_CHECKING:
    from tf_lwdgh.interface.functions import export, load_exported, make_glyphs, train
    from tf_lwdgh.interface.run import Classifier, Run, load_run

if platform.machine() in ("x86_64", "AMD64"):
    # TensorFlow reads it when it is imported, and without it uses oneDNN's convolutions only on CPUs
    # that have AVX512-VNNI or the like. They are faster on older ones too (docs/performance.md).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__all__ = ["Classifier", "Run", "export", "load_exported", "load_run", "make_glyphs", "train"]
_MODULES = {"Classifier": "run", "Run": "run", "load_run": "run"}  # of tf_lwdgh.interface; the others: functions


class _Package(types.ModuleType):
    """This package, in which `train` and `export` are functions whether or not the commands were imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, types.ModuleType)):  # not the command's module
            super().__setattr__(name, value)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'tf_lwdgh' has no attribute {name!r}")
    module = importlib.import_module(f"tf_lwdgh.interface.{_MODULES.get(name, 'functions')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
