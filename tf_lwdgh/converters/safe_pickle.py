# SPDX-License-Identifier: Apache-2.0
"""Reading pickles without running them: arrays and plain containers only, all else refused by name.

A pickle is a program; what it may call is what `find_class` gives it: the short table of
`pickle_calls`. Its opcodes are obeyed one by one, by Python's own unpickler, and each is looked at
first: a length beyond the end of the file is refused before anything of that length is made, and all
that is made is counted.
"""

from __future__ import annotations

import os
import pathlib
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

from tf_lwdgh.converters.pickle_calls import Budget, Calls, UnsafePickle, check_keys

# Memory that a pickle may ask for: so many times its size, for arrays of bytes that were text, and
# so much beside, for small objects.
TIMES, BESIDE = 4, 1 << 30
_OPCODE = 100  # bytes that an opcode may make, a set aside
_SET = 220


class _Bounded:
    """A file that refuses to read beyond its end, and says where."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size
        self._size = size

    def read(self, n: int) -> bytes:
        if n > self._left:
            raise EOFError(f"at byte {self._size - self._left:,} it asks for {n:,} bytes, and {self._left:,} are left")
        self._left -= n
        return self._file.read(n)

    def readline(self) -> bytes:
        line = self._file.readline()
        self._left -= len(line)
        return line


class _Unpickler(pickle._Unpickler):
    """Python's unpickler written in Python: the one whose every step can be looked at."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(_Bounded(file, size), encoding="latin1")
        self.budget = Budget(TIMES * size + BESIDE)
        self.calls = Calls(self.budget, size)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.calls.table[module, name]
        except KeyError:
            raise UnsafePickle(
                f"it asks for {module}.{name}, which could run any code. Only NumPy arrays, "
                "numbers, text, lists, tuples, sets and dictionaries are read"
            ) from None

    def under_mark(self, kind: type) -> Any:
        """The object below the newest mark, which must be of a kind."""
        return _of_kind(self.metastack[-1][-1], kind)

    def get_extension(self, code: int) -> None:
        raise UnsafePickle(f"it asks for the extension {code}, which could be any code")


def _of_kind(target: Any, kind: type) -> Any:
    if not isinstance(target, kind):
        raise UnsafePickle(f"it fills a {type(target).__name__} like a {kind.__name__}")
    return target


def _build(self: _Unpickler) -> None:
    state = self.stack.pop()
    self.calls.set_state(self.stack[-1], state)


def _bytearray(self: _Unpickler) -> None:
    length = int.from_bytes(self.read(8), "little")
    self.append(bytearray(self.read(length)))


def _append(self: _Unpickler) -> None:
    value = self.stack.pop()
    _of_kind(self.stack[-1], list).append(value)


def _appends(self: _Unpickler) -> None:
    target = self.under_mark(list)
    target.extend(self.pop_mark())


def _set_item(self: _Unpickler) -> None:
    value, key = self.stack.pop(), self.stack.pop()
    check_keys([key])
    _of_kind(self.stack[-1], dict)[key] = value


def _set_items(self: _Unpickler) -> None:
    target = self.under_mark(dict)
    target.update(_pairs(self))


def _dict(self: _Unpickler) -> None:
    made = _pairs(self)  # changes what self.append is
    self.append(made)


def _pairs(self: _Unpickler) -> dict:
    items = self.pop_mark()
    check_keys(items[::2])
    return dict(zip(items[::2], items[1::2], strict=True))


def _add_items(self: _Unpickler) -> None:
    target = self.under_mark(set)
    target.update(_elements(self))


def _frozenset(self: _Unpickler) -> None:
    made = frozenset(_elements(self))
    self.append(made)


def _elements(self: _Unpickler) -> list:
    self.budget.take(_SET)
    items = self.pop_mark()
    check_keys(items)
    return items


def _empty_set(self: _Unpickler) -> None:
    self.budget.take(_SET)
    self.append(set())


def _counted(obey: Callable[[_Unpickler], None]) -> Callable[[_Unpickler], None]:
    def step(self: _Unpickler) -> None:
        self.budget.take(_OPCODE)
        obey(self)

    return step


_OWN = {
    pickle.BUILD: _build, pickle.BYTEARRAY8: _bytearray, pickle.APPEND: _append,
    pickle.APPENDS: _appends, pickle.SETITEM: _set_item, pickle.SETITEMS: _set_items,
    pickle.DICT: _dict, pickle.ADDITEMS: _add_items, pickle.FROZENSET: _frozenset,
    pickle.EMPTY_SET: _empty_set,
}  # fmt: skip
_OBEYED = {**pickle._Unpickler.dispatch, **{code[0]: obey for code, obey in _OWN.items()}}
_Unpickler.dispatch = {code: obey if code == pickle.STOP[0] else _counted(obey) for code, obey in _OBEYED.items()}


def load(path: str | os.PathLike) -> Any:
    """The content of a pickle; the text of Python 2 is read as latin1.

    Raises:
      UnsafePickle: it asks for anything but arrays and containers, or for more memory than a file of
        its size can need; the message names what.
      ValueError: it is cut short or no pickle.
    """
    path = pathlib.Path(path)
    with open(path, "rb") as file:
        try:
            return _Unpickler(file, os.fstat(file.fileno()).st_size).load()
        except UnsafePickle as error:
            raise UnsafePickle(f"{path} is refused: {error}.") from error
        except (MemoryError, OSError):
            raise
        except Exception as error:  # a damaged pickle raises whatever its opcodes meet
            kind = type(error).__name__
            raise ValueError(f"{path} is no readable pickle ({kind}: {error}).") from error
