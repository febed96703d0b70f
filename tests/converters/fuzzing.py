# SPDX-License-Identifier: Apache-2.0
"""Made-up pickles, archives, lists and images: read, or refused by an error that is foreseen.

    python -m tests.converters.fuzzing --inputs 20000

Every input may take 10 seconds of the processor and 2 GB of memory: else it is an error here, and the
smallest such input is printed. Inputs are drawn by Hypothesis, the same in every run unless --seed.
"""

from __future__ import annotations

import argparse
import io
import pathlib
import pickle
import pickletools
import resource
import signal
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from tf_lwdgh.converters import (
    archives,
    cub,
    folders,
    limits,
    listed_splits,
    npz,
    pickled_splits,
    pictures,
    problems,
    safe_pickle,
    tiered_labels,
)

_SECONDS, _MEMORY = 10.0, 2 << 30


def _image(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(buffer, form)
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/b.txt", b"data" * 50)
        file.writestr("c", b"")
    return buffer.getvalue()


def _tar(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}", format=tarfile.PAX_FORMAT) as file:
        for name in ("a/b.txt", "ä" * 120):
            member = tarfile.TarInfo(name)
            member.size = 200
            file.addfile(member, io.BytesIO(b"data" * 50))
    return buffer.getvalue()


def _npz(save) -> bytes:
    buffer = io.BytesIO()
    save(buffer, images=np.zeros((2, 3, 3, 3), np.uint8))
    return buffer.getvalue()


_CONTENT = {
    "image_data": np.zeros((4, 3, 3, 3), np.uint8), "class_dict": {"a": [0, 1], "b": np.arange(2, 4)},
    "data": [np.zeros((3, 3, 3), np.uint8)] * 4, "labels": [0, 0, 1, 1], "sets": {1, frozenset([2])},
    "catname2label": {"x": 0}, "label_specific": np.arange(4), "label_specific_str": list("abcd"),
    "label_general": [0, 0, 1, 1], "label_general_str": np.array(["p", "q"]), "n": np.float32(1),
}  # fmt: skip
PICKLES = [pickle.dumps(_CONTENT, protocol) for protocol in range(6)]
ARCHIVES = {"x.zip": _zip(), "x.tar": _tar(""), "x.tgz": _tar("gz"), "x.tar.xz": _tar("xz"), "x.tbz2": _tar("bz2")}
LISTS = [b"filename,label\nn0153282900000005.jpg,n01532829\n", b"a\nb/\n", b"1 60.0 27.0 325.0 304.0\n"]
IMAGES = [_image(form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]
ARRAYS = [_npz(np.savez), _npz(np.savez_compressed)]


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with some bytes changed, put in or cut off."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        put = draw(st.one_of(st.binary(max_size=9), st.sampled_from([b"\xff" * 8, b"\0" * 4, b"999999999"])))
        content[at : at + draw(st.integers(0, len(put)))] = put
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def opcodes() -> st.SearchStrategy[bytes]:
    """A pickle of any opcodes, some with arguments that fit."""
    codes = st.sampled_from([code.code.encode("latin1") for code in pickletools.opcodes])
    names = st.sampled_from([
        b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cbuiltins\nset\n", b"cbuiltins\nbytearray\n",
        b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n", b"(Vu1\nI0\nI1\ntR",
        b"cnumpy._core.numeric\n_frombuffer\n", b"K\x01", b"(", b"t", b"}", b"]", b"R", b"b", b"2", b"\x94",
    ])  # fmt: skip
    return st.lists(st.one_of(names, codes, st.binary(max_size=4)), max_size=40).map(
        lambda parts: b"\x80\x04" + b"".join(parts) + b"."
    )


_LEAVES = st.one_of(
    st.none(), st.integers(-(1 << 70), 1 << 70), st.floats(), st.text(max_size=3), st.binary(max_size=3),
    st.sampled_from([np.arange(4), np.zeros((4, 3, 3, 3), np.uint8), np.zeros((0, 0)), np.array([None, 1])]),
)  # fmt: skip
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.integers() | st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
CONTENTS = st.dictionaries(st.sampled_from(list(_CONTENT)), _VALUES, max_size=4).map(
    lambda some: pickle.dumps({**_CONTENT, **some}, 4)
)


class Hangs(AssertionError):
    """An input that took too long."""


class Reader:
    """Reads inputs in a folder of its own; all that is not foreseen passes through."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def pickle(self, content: bytes) -> None:
        for split in ("train", "val", "test"):
            for name in ("mini-imagenet-cache-{}.pkl", "CIFAR_FS_{}.pickle", "{}_labels.pkl"):
                (self.folder / name.format(split)).write_bytes(content)
        self._foreseen(lambda: safe_pickle.load(self.folder / "train_labels.pkl"))
        for form in ("cache", "cifar_fs"):
            self._foreseen(lambda f=form: self._all(pickled_splits.read(self.folder, f, 2)))
        self._foreseen(lambda: tiered_labels.read(self.folder))

    @staticmethod
    def _all(read) -> None:
        for by_class in read.values():
            for _, images in by_class.values():
                list(images)

    def archive(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)

        def unpack() -> None:
            with archives.as_folder(self.folder / name, beside=self.folder / "out"):
                pass

        self._foreseen(unpack)

    def array(self, content: bytes) -> None:
        (self.folder / "x.npz").write_bytes(content)

        def read() -> None:
            with open(self.folder / "spare", "w+b") as spare:
                npz.member(self.folder / "x.npz", "images", spare, beside=self.folder).sum()

        self._foreseen(read)

    def list(self, content: bytes) -> None:
        for split in ("train", "val", "test"):
            (self.folder / f"{split}.csv").write_bytes(content)
            (self.folder / f"{split}.txt").write_bytes(content)
        self._foreseen(lambda: listed_splits.read_lists(self.folder))
        self._foreseen(lambda: folders.read_lists(self.folder))
        self._foreseen(lambda: cub._table(self.folder / "train.txt", 4))

    def image(self, content: bytes) -> None:
        for size in (None, 10, 4):
            self._foreseen(lambda s=size: pictures.read_image("x", lambda: content, problems.Problems(), image_size=s))

    def _foreseen(self, read) -> None:
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        try:
            read()
        except (ValueError, OSError) as error:
            assert str(error), type(error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def _test(read: Callable[[Any], None]) -> Callable[[Any], None]:
    def test(content) -> None:
        read(content)

    return test


def _hangs(*_) -> None:
    raise Hangs


def bound_memory() -> None:
    """What is taken now, and so much more; beyond that is a MemoryError, which nothing foresees."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    taken = next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (taken * 1024 + _MEMORY,) * 2)


def main() -> None:
    """Reads so many inputs of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, help="other inputs than the usual ones")
    args = parser.parse_args()
    chosen = settings(
        max_examples=args.inputs, deadline=None, database=None, derandomize=args.seed is None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    bound_memory()
    signal.signal(signal.SIGPROF, _hangs)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name, limits.use(limits.Limits(max_pixels=1 << 20)):
        reader = Reader(pathlib.Path(name))
        kinds = {
            "pickles, changed": (st.sampled_from(PICKLES).flatmap(changed), reader.pickle),
            "pickles of any opcodes": (opcodes(), reader.pickle),
            "pickles of any content": (CONTENTS, reader.pickle),
            "archives": (
                st.sampled_from(sorted(ARCHIVES)).flatmap(lambda n: st.tuples(st.just(n), changed(ARCHIVES[n]))),
                lambda pair: reader.archive(*pair),
            ),
            "arrays": (st.sampled_from(ARRAYS).flatmap(changed), reader.array),
            "lists": (st.one_of(st.sampled_from(LISTS).flatmap(changed), st.binary(max_size=60)), reader.list),
            "images": (st.sampled_from(IMAGES).flatmap(changed), reader.image),
        }  # fmt: skip
        for kind, (inputs, read) in kinds.items():
            test = chosen(given(inputs)(_test(read)))
            (test if args.seed is None else seed(args.seed)(test))()
            print(f"{kind}: {args.inputs} inputs")


if __name__ == "__main__":
    main()
