# SPDX-License-Identifier: Apache-2.0
"""Small sources that ask for much: refused by name before they are obeyed, and nothing is left."""

import bz2
import errno
import gzip
import io
import lzma
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from tests.converters import raw
from tf_lwdgh.converters import (
    archives,
    folders,
    limits,
    listed_splits,
    mini_imagenet,
    npz,
    pickled_splits,
    pictures,
    problems,
    safe_pickle,
    texts,
)

GIB = 1 << 30
_STATE = b"(K\x01%s%s\x89%stb."  # an array's: version, shape, dtype, order, content
_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
_DTYPE = b"cnumpy\ndtype\n(V%s\nI0\nI1\ntR"


def _eight(code: bytes) -> bytes:
    """An opcode with a length of 8 GiB, and nothing behind it."""
    return b"\x80\x04" + code + struct.pack("<Q", 8 * GIB) + b"."


BOMBS = {
    "binbytes8": (_eight(pickle.BINBYTES8), "asks for 8,589,934,592 bytes, and 1 are left"),
    "binunicode8": (_eight(pickle.BINUNICODE8), "asks for 8,589,934,592 bytes"),
    "bytearray8": (_eight(pickle.BYTEARRAY8), "asks for 8,589,934,592 bytes"),
    "frame": (_eight(pickle.FRAME), "asks for 8,589,934,592 bytes"),
    "long4": (b"\x8b\xff\xff\xff\x7f.", "asks for 2,147,483,647 bytes"),
    "bytes of a number": (b"cbuiltins\nbytearray\n(I8589934592\ntR.", "bytes of int are refused"),
    "new bytes": (b"\x80\x02cbuiltins\nbytes\n(I8589934592\nt\x81.", "no readable pickle"),
    "list of bytes": (b"cbuiltins\nlist\n(Vabc\ntR.", "a list of a str is refused"),
    "objects without elements": (
        _ARRAY + _STATE % (b"(I1073741824\nt", _DTYPE % b"O8", b"]"), "the 1,073,741,824 elements"
    ),
    "axes without end": (
        _ARRAY + _STATE % (b"(I0\nI4611686018427387904\nt", _DTYPE % b"u1", b"C\x00"), "shape"
    ),
    "pointers": (_ARRAY + _STATE % (b"(I1\nt", _DTYPE % b"O8", b"C\x08abcdefgh"), "filled with a bytes"),
    "a dtype with flags": (_DTYPE % b"O8" + b"(I3\nV|\nNNNI-1\nI-1\nI0\ntb.", "another size or kind"),
    "a dtype with fields": (b"cnumpy\ndtype\n(Vu1,O8\nI0\nI1\ntR.", "the dtype 'u1,O8' is refused"),
    "state of a function": (b"c_codecs\nencode\n}Vx\nI1\nsb.", "sets the state of a method"),
    "hash without end": (b"(" + b"(" * 40 + b"I1\n" + b"t2\x86" * 40 + b"I1\nd.", "no readable|a key"),
    "an extension": (b"\x80\x02\x82\x01.", "asks for the extension 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_pickle_that_asks_for_much_is_refused_before_it_is_obeyed(tmp_path, name):
    content, message = BOMBS[name]
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"file\.pkl is .*({message})"):
        safe_pickle.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_nested_tuples_are_no_keys(tmp_path):
    nested = (1,)
    for _ in range(60):  # 2**60 elements to hash
        nested = (nested, nested)
    for content in ([{1: 2}], [{1}], [frozenset([1])]):
        pickled = pickle.dumps(content, 4).replace(b"K\x01", pickle.dumps(nested, 4)[11:-1], 1)
        (tmp_path / "file.pkl").write_bytes(_without_frames(pickled))
        with pytest.raises(ValueError, match="a key that is a tuple is refused"):
            safe_pickle.load(tmp_path / "file.pkl")


def _without_frames(content: bytes) -> bytes:
    return content[:2] + content[11:]


def test_what_a_pickle_makes_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_pickle, "BESIDE", 1 << 20)
    copied = b"(" + b"C\xff" + bytes(255) + b"q\x00" + b"cbuiltins\nbytes\nq\x01"
    copied += b"h\x01h\x00\x85R" * 5000 + b"l."
    (tmp_path / "file.pkl").write_bytes(b"\x80\x03" + copied)
    with pytest.raises(safe_pickle.UnsafePickle, match="more than the 1,.* bytes of memory that its size"):
        safe_pickle.load(tmp_path / "file.pkl")
    (tmp_path / "file.pkl").write_bytes(b"\x80\x04(" + pickle.EMPTY_SET * 10_000 + b"l.")
    with pytest.raises(safe_pickle.UnsafePickle, match="bytes of memory"):
        safe_pickle.load(tmp_path / "file.pkl")


def test_labels_that_unfold_without_end_are_refused(tmp_path):
    nested = [0]
    for _ in range(60):
        nested = [nested, nested]
    for value in (nested, [nested], {"a": nested}):
        with pytest.raises(ValueError, match="'labels' must be a list of whole numbers"):
            pickled_splits.integers(tmp_path, "labels", value)
    with pytest.raises(ValueError, match="a name must be text"):
        pickled_splits.text(nested)


# Archives


def _zip(path, size: int, members: int = 1):
    """A zip whose members say that they are so large; what they hold is a few bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(members):
            file.writestr(f"m{i}", b"data")
        for member in file.filelist:
            member.file_size = size
    return path


OPEN = {"gz": gzip.open, "xz": lzma.open, "bz2": bz2.open, "tar": open}


def _tar(path, header: tarfile.TarInfo, kind: str):
    """A tar whose member says its size, and is cut behind the header."""
    with OPEN[kind](path, "wb") as file:
        file.write(header.tobuf() + bytes(1024))
    return path


def test_a_zip_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path):
    path = _zip(tmp_path / "bomb.zip", 8 * GIB // 4, members=4)
    with pytest.raises(limits.TooMuch, match=r"bomb\.zip must not unpack to more than 1,073,741,824 .*"
                       r"Received: 8,589,934,592 .*--max_unpacked=GB"):  # fmt: skip
        with archives.as_folder(path, beside=tmp_path / "data/out"):
            pass
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("kind", OPEN)
def test_a_tar_member_that_is_too_large_is_refused_before_it_is_unpacked(tmp_path, kind):
    member = tarfile.TarInfo("big")
    member.size = 8 * GIB
    path = _tar(tmp_path / ("bomb.tar" if kind == "tar" else f"bomb.tar.{kind}"), member, kind)
    with pytest.raises(limits.TooMuch, match="Received: 8,589,934,592 bytes or more"):
        archives.unpack(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_header_that_would_fill_the_memory_is_refused(tmp_path, kind):
    member = tarfile.TarInfo("name")
    member.type, member.size = kind, 1 << 26
    with gzip.open(tmp_path / "bomb.tgz", "wb") as file:
        file.write(member.tobuf() + bytes(1 << 26))
    assert (tmp_path / "bomb.tgz").stat().st_size < 1 << 17
    tracemalloc.start()
    with pytest.raises(ValueError, match="a header of 67,108,864 bytes"):
        archives.unpack(tmp_path / "bomb.tgz", tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_sparse_members_are_refused(tmp_path):
    member = tarfile.TarInfo("holes.png")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"00100000000\0"  # its real size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    (tmp_path / "x.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(archives.UnsafeMember, match="is a sparse file"):
        archives.unpack(tmp_path / "x.tar", tmp_path / "out")
    with pytest.raises(archives.UnsafeMember, match="is a sparse file"):
        archives.tar_members(tmp_path / "x.tar", (".png",))


def test_many_small_members_count_for_the_blocks_they_take(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "LEAST", 1 << 20)
    with tarfile.open(tmp_path / "many.tar.xz", "w:xz") as file:
        for i in range(300):
            file.addfile(tarfile.TarInfo(f"{i}"))
    with pytest.raises(limits.TooMuch, match="many.tar.xz must not unpack to more than 1,048,576"):
        archives.unpack(tmp_path / "many.tar.xz", tmp_path / "out")


def test_the_flag_changes_what_may_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(100_000))
    with limits.use(limits.Limits(max_unpacked=99_999)):
        with pytest.raises(limits.TooMuch, match="99,999 bytes .as --max_unpacked says"):
            archives.unpack(tmp_path / "x.zip", tmp_path / "out")
    with limits.use(limits.Limits(max_unpacked=100_000)):
        archives.unpack(tmp_path / "x.zip", tmp_path / "out")
    assert (tmp_path / "out/zeros").stat().st_size == 100_000


def test_free_room_is_looked_at_before_anything_is_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(100_000))
    room = shutil.disk_usage(tmp_path)._replace(free=99_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(OSError, match=r"x\.zip needs 100,000 bytes, and 99,999 are free") as raised:
        archives.unpack(tmp_path / "x.zip", tmp_path / "out")
    assert raised.value.errno == errno.ENOSPC and list((tmp_path / "out").iterdir()) == []


def test_an_array_of_an_npz_is_held_to_its_member(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (8 * GIB,)})
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "x.npz", "w", compression) as file:
            file.writestr("images.npy", head.getvalue() + bytes(10))
        with open(tmp_path / "spare", "w+b") as spare:
            with pytest.raises(ValueError, match="'images' cannot be read .* is more than its"):
                npz.member(tmp_path / "x.npz", "images", spare, beside=tmp_path)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(10))
    with open(tmp_path / "spare", "w+b") as spare:
        with pytest.raises(ValueError, match="a header of 2,147,483,647 bytes"):
            npz.member(tmp_path / "x.npz", "images", spare, beside=tmp_path)


# Images


def _large_png(width: int, height: int) -> bytes:
    """A grey PNG of zeros that is small in the file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    lines = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded():
    content = _large_png(13_000, 13_000)
    assert len(content) < 30_000
    with limits.use(limits.Limits()):
        tracemalloc.start()
        with pytest.raises(ValueError, match="x: the image is corrupt .an image must have at most "
                           "89,478,485 pixels. Received: 13,000 × 13,000; --max_pixels=169000000"):  # fmt: skip
            pictures.read_image("x", lambda: content, problems.Problems(), image_size=84)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    small = _large_png(300, 300)
    with limits.use(limits.Limits(max_pixels=89_999)), pytest.raises(ValueError, match="at most 89,999"):
        pictures.read_image("x", lambda: small, problems.Problems(), image_size=84)
    with limits.use(limits.Limits(max_pixels=90_000)):
        assert pictures.read_image("x", lambda: small, problems.Problems(), image_size=84).shape == (84, 84)


# Folders and lists


def _tree(root, **splits):
    for split, classes in splits.items():
        (root / split).mkdir(parents=True)
        for i, name in enumerate(classes):
            for j in range(2):
                raw.save(root / split / name / f"{j}.png", raw.pixels(10 * i + j))


def test_a_folder_whose_name_is_no_text_is_named(tmp_path):
    _tree(tmp_path / "in", train="ab", val="c", test="d")
    try:
        os.rename(tmp_path / "in/train/b", os.fsencode(tmp_path / "in/train") + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system has names of text alone")
    with pytest.raises(ValueError, match=r"in/train: the name of a folder must be UTF-8.*b'caf\\xe9'"):
        folders.convert(tmp_path / "in", tmp_path / "out", name="x")


def test_a_file_whose_name_is_no_text_is_read_and_a_corrupt_one_is_named(tmp_path):
    _tree(tmp_path / "in", train="ab", val="c", test="d")
    name = os.fsencode(tmp_path / "in/train/b") + b"/caf\xe9.png"
    try:
        os.rename(tmp_path / "in/train/b/1.png", name)
    except OSError:
        pytest.skip("this file system has names of text alone")
    assert folders.convert(tmp_path / "in", tmp_path / "out", name="x")[0].images_per_class[1] == 2
    with open(name, "wb") as file:
        file.write(b"no image")
    _, found = folders.convert(tmp_path / "in", tmp_path / "out2", name="x", skip_bad=True)
    assert r"caf\udce9.png: the image is corrupt (it is none of PNG" in found.summary()
    found.summary().encode()  # may be printed anywhere


@pytest.mark.parametrize("empty", [("train", "val", "test"), ("val",)])
def test_split_folders_without_classes_are_no_data_set(tmp_path, empty):
    _tree(tmp_path / "in", **{s: [] if s in empty else [s[:2]] for s in ("train", "val", "test")})
    with pytest.raises(ValueError, match=f"split {empty[0]} has no class"):
        folders.convert(tmp_path / "in", tmp_path / "out", name="x")
    if len(empty) == 3:
        with pytest.raises(ValueError, match="at least one class"):
            folders.convert(tmp_path / "in", tmp_path / "out", name="x", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_lists_that_are_no_text_or_no_table_are_named(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(b"filename,label\na.jpg,caf\xe9\n")
    with pytest.raises(ValueError, match=r"train\.csv, line 2: it must be UTF-8. Received: b'\\xe9'"):
        listed_splits.read_lists(tmp_path)
    path.write_bytes(b"filename,label\na.jpg\n")
    with pytest.raises(ValueError, match=r"train\.csv: a row must have the cells filename, label"):
        listed_splits.read_lists(tmp_path)
    path.write_bytes(b'filename,label\n"a.jpg,b\n')
    with pytest.raises(ValueError, match=r"train\.csv, line \d is no row of a table"):
        listed_splits.read_lists(tmp_path)
    path.write_bytes(b"\xef\xbb\xbffilename,label\r\na.jpg,b\r\n")  # as Excel writes it
    assert texts.read_table(path) == [{"filename": "a.jpg", "label": "b"}]


def test_a_converter_refuses_a_bomb_with_exit_code_2(tmp_path):
    (tmp_path / "in").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / f"in/mini-imagenet-cache-{split}.pkl").write_bytes(BOMBS["binbytes8"][0])
    with pytest.raises(ValueError, match="cache-train.pkl is no readable pickle .*8,589,934,592"):
        mini_imagenet.convert(tmp_path / "in", tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-m", "tf_lwdgh.converters", "mini_imagenet", f"--source={tmp_path / 'in'}",
         f"--data_dir={tmp_path}", "--max_pixels=0"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "--max_pixels must be at least 1. Received: 0" in done.stderr
    assert "Traceback" not in done.stderr
