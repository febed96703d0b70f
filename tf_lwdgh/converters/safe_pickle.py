"""Reading pickles without running them: arrays and plain containers only, all else refused by name.

A pickle is a program; what it may call is what `find_class` gives it. Here that is a short table
of our own functions, none of which runs code or touches a file, so that NumPy 1, NumPy 2 and
Python 2 pickles load.
"""

from __future__ import annotations

import collections
import os
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np


class UnsafePickle(ValueError):
    """A pickle that asks for more than arrays and containers."""


class _ArrayClass:
    """Stands for numpy.ndarray, so that a pickle can name the class but not call it."""


def _reconstruct(kind: type, shape: tuple, code: Any) -> np.ndarray:
    """numpy's _reconstruct: an empty array, which the pickle's next step fills."""
    del shape, code  # always (0,) and b'b'
    if kind is not _ArrayClass:
        raise UnsafePickle(f"an array of class {kind!r} is refused: only plain arrays are read.")
    return np.empty(0, np.int8)


def _from_buffer(
    buffer: Any, dtype: np.dtype, shape: tuple, order: str, axes: Any = None
) -> np.ndarray:
    """numpy's _frombuffer: an array of protocol 5. A copy, since the buffer may be read-only."""
    if axes is not None:
        raise UnsafePickle("an array with permuted axes is refused; save it in C or Fortran order.")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order).copy(order="K")


def _scalar(dtype: np.dtype, content: Any = b"") -> np.generic:
    """numpy's scalar of a plain type."""
    if dtype.hasobject:
        raise UnsafePickle("a NumPy scalar of Python objects is refused.")
    raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
    return np.frombuffer(raw, dtype=dtype)[0]


def _dtype(kind: Any, *options: Any) -> np.dtype:
    """numpy.dtype of a type code such as 'u1'."""
    if not isinstance(kind, str):
        raise UnsafePickle(f"a dtype made from {type(kind).__name__} is refused.")
    return np.dtype(kind, *options)


def _encode(text: str, encoding: str) -> bytes:
    """codecs.encode, which protocols 0 to 2 use for bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickle(f"the encoding {encoding!r} is refused.")
    return text.encode("latin1")


_BUILTINS = {k.__name__: k for k in (set, frozenset, bytes, bytearray, complex, list, dict, tuple)}
_NUMPY_CORES = ("numpy.core", "numpy._core")  # NumPy 1 and 2
_ALLOWED: dict[tuple[str, str], Callable] = {
    **{(m, n): k for m in ("builtins", "__builtin__") for n, k in _BUILTINS.items()},
    **{(f"{c}.multiarray", "_reconstruct"): _reconstruct for c in _NUMPY_CORES},
    **{(f"{c}.multiarray", "scalar"): _scalar for c in _NUMPY_CORES},
    **{(f"{c}.numeric", "_frombuffer"): _from_buffer for c in _NUMPY_CORES},
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UnsafePickle(
                f"it asks for {module}.{name}, which could run any code. Only NumPy arrays, "
                "numbers, text, lists, tuples, sets and dictionaries are read"
            ) from None


def load(path: str | os.PathLike) -> Any:
    """The content of a pickle; the text of Python 2 is read as latin1.

    Raises:
      UnsafePickle: it asks for anything but arrays and containers; the message names what.
      ValueError: it is cut short or no pickle.
    """
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except UnsafePickle as error:
            raise UnsafePickle(f"{path} is refused: {error}.") from error
        except (MemoryError, OSError):
            raise
        except Exception as error:  # a damaged pickle raises whatever its opcodes meet
            kind = type(error).__name__
            raise ValueError(f"{path} is no readable pickle ({kind}: {error}).") from error
