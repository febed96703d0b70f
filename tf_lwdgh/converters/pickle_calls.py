# SPDX-License-Identifier: Apache-2.0
"""What a pickle may call and set: our own functions for arrays and containers, within a memory budget.

None of them runs code or touches a file, so that NumPy 1, NumPy 2 and Python 2 pickles load. What a
call makes is counted before it is made: bytes that a pickle has once it can ask for many times.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

_DTYPE = re.compile(r"[<>|=]?(?:[?bBhHiIlLqQefdgFDGO]|[biufcOSUV][1-9]\d{0,8})")
_PLAIN = (str, bytes, int, float, complex, np.generic, type(None))  # bool is an int
_OBJECT = 100  # bytes that an element takes in a container, and more


class UnsafePickle(ValueError):
    """A pickle that asks for more than arrays and containers."""


class Budget:
    """The bytes of memory that a pickle may still ask for.

    Args:
      limit: how many in all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit

    def take(self, size: int) -> None:
        """Counts bytes that are about to be taken."""
        self._left -= size
        if self._left < 0:
            raise UnsafePickle(f"it would take more than the {self._limit:,} bytes of memory that its size allows")


class ArrayClass:
    """Stands for numpy.ndarray, so that a pickle can name the class but not call it."""


class Calls:
    """The functions that one pickle may call, by module and name, and the states it may set.

    Args:
      budget: what they may take.
      size: bytes of the file; no array has more elements.
    """

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget, self._size = budget, size
        makers = {k.__name__: self._maker(k) for k in (set, frozenset, list, tuple, dict)}
        plain = {**makers, "bytes": self._bytes, "bytearray": self._bytearray, "complex": complex}
        cores = ("numpy.core", "numpy._core")  # NumPy 1 and 2
        self.table: dict[tuple[str, str], Callable] = {
            **{(m, n): k for m in ("builtins", "__builtin__") for n, k in plain.items()},
            **{(f"{c}.multiarray", "_reconstruct"): _reconstruct for c in cores},
            **{(f"{c}.multiarray", "scalar"): self._scalar for c in cores},
            **{(f"{c}.numeric", "_frombuffer"): self._from_buffer for c in cores},
            ("numpy", "ndarray"): ArrayClass,
            ("numpy", "dtype"): _dtype,
            ("_codecs", "encode"): self._encode,
            ("collections", "OrderedDict"): self._maker(collections.OrderedDict),
        }

    def _maker(self, kind: type) -> Callable:
        """A container's class, whose elements are counted and whose keys are plain."""

        def make(elements: Any = ()) -> Any:
            if not isinstance(elements, (list, tuple, set, frozenset, dict)):
                raise UnsafePickle(f"a {kind.__name__} of a {type(elements).__name__} is refused")
            self._budget.take(_OBJECT * len(elements))
            if kind in (set, frozenset):
                check_keys(elements)
            elif kind not in (list, tuple):
                check_keys(e[0] for e in elements if isinstance(e, (list, tuple)) and e)
            return kind(elements)

        return make

    def _bytes(self, content: Any = b"", encoding: str = "latin1") -> bytes:
        if isinstance(content, str):
            return self._encode(content, encoding)
        if not isinstance(content, (bytes, bytearray)):
            raise UnsafePickle(f"bytes of {type(content).__name__} are refused")
        self._budget.take(len(content))
        return bytes(content)

    def _bytearray(self, content: Any = b"", encoding: str = "latin1") -> bytearray:
        return bytearray(self._bytes(content, encoding))

    def _encode(self, text: str, encoding: str) -> bytes:
        """codecs.encode, which protocols 0 to 2 use for bytes."""
        if encoding not in ("latin1", "latin-1"):
            raise UnsafePickle(f"the encoding {encoding!r} is refused")
        self._budget.take(len(text))
        return text.encode("latin1")

    def _from_buffer(self, buffer: Any, dtype: np.dtype, shape: Any, order: str, axes: Any = None) -> np.ndarray:
        """numpy's _frombuffer: an array of protocol 5. A copy, since the buffer may be read-only."""
        if axes is not None:
            raise UnsafePickle("an array with permuted axes is refused; save it in C or Fortran order")
        self._check_shape(shape, dtype, buffer)
        array = np.frombuffer(buffer, dtype=dtype)
        return array.reshape(shape, order=order).copy(order="K")

    def _scalar(self, dtype: np.dtype, content: Any = b"") -> np.generic:
        """numpy's scalar of a plain type."""
        if dtype.hasobject:
            raise UnsafePickle("a NumPy scalar of Python objects is refused")
        return np.frombuffer(self._bytes(content), dtype=dtype)[0]

    def set_state(self, target: Any, state: Any) -> None:
        """An array's or a dtype's __setstate__, where the state is one that NumPy writes.

        Raises:
          UnsafePickle: another target or state.
        """
        if isinstance(target, np.dtype):
            _check_dtype_state(target, state)
        elif isinstance(target, np.ndarray):
            if not isinstance(state, tuple) or len(state) != 5:
                raise UnsafePickle("the state of an array must have 5 parts")
            _, shape, dtype, _, content = state
            self._check_shape(shape, dtype, content)
        else:
            raise UnsafePickle(f"it sets the state of a {type(target).__name__}, which has none")
        target.__setstate__(state)

    def _check_shape(self, shape: Any, dtype: Any, content: Any) -> None:
        """That the content, bytes or a list of objects, fills the shape."""
        fits = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not fits or len(shape) > 32 or not isinstance(dtype, np.dtype) or not dtype.itemsize:
            raise UnsafePickle("an array's shape or dtype is none")
        kinds = (list,) if dtype.hasobject else (bytes, bytearray, str)
        if not isinstance(content, kinds):
            raise UnsafePickle(f"an array of {dtype} is filled with a {type(content).__name__}")
        count, unit = math.prod(shape), 1 if dtype.hasobject else dtype.itemsize
        if count * unit != len(content) or math.prod(n for n in shape if n) > self._size:
            raise UnsafePickle(
                f"an array must have the {count * unit:,} elements or bytes of its shape "
                f"{list(shape)}. Received: {len(content):,}"
            )
        self._budget.take(count * dtype.itemsize)


def check_keys(keys: Iterable[Any]) -> None:
    """Raises UnsafePickle where a key is neither plain nor a tuple of plain values.

    The hash of nested tuples can take for ever.
    """
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, _PLAIN) for part in parts):
            raise UnsafePickle(f"a key that is a {type(key).__name__} is refused")


def _reconstruct(kind: type, shape: Sequence[int], code: Any) -> np.ndarray:
    """numpy's _reconstruct: an empty array, which the pickle's next step fills."""
    del shape, code  # always (0,) and b'b'
    if kind is not ArrayClass:
        raise UnsafePickle(f"an array of class {kind!r} is refused: only plain arrays are read")
    return np.empty(0, np.int8)


def _dtype(kind: Any, align: Any = False, copy: Any = True) -> np.dtype:
    """numpy.dtype of a type code such as 'u1'; always a new one, whose state may be set."""
    del align, copy
    if not isinstance(kind, str):
        raise UnsafePickle(f"a dtype made from {type(kind).__name__} is refused")
    if not _DTYPE.fullmatch(kind):
        raise UnsafePickle(f"the dtype {kind[:50]!r} is refused: only plain ones are read")
    return np.dtype(kind, copy=True)


def _check_dtype_state(dtype: np.dtype, state: Any) -> None:
    """Only the byte order may differ from the dtype's own; fields and flags could lie about memory."""
    parts = state if isinstance(state, tuple) and len(state) in (8, 9) else (None,) * 8
    version, order, subdtype, names, fields, size, alignment, flags = parts[:8]
    own = (subdtype, names, fields, *parts[8:]) == (None,) * (len(parts) - 5)
    sizes = {(-1, -1), (dtype.itemsize, dtype.alignment)}
    if version not in (3, 4) or order not in ("<", ">", "=", "|") or not own:
        raise UnsafePickle("a dtype with fields or metadata is refused")
    if (size, alignment) not in sizes or flags != dtype.flags:
        raise UnsafePickle(f"a dtype {dtype} of another size or kind is refused")
