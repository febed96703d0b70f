# SPDX-License-Identifier: Apache-2.0
"""Pickles are not run: hostile ones are refused by name, honest ones of all ages load."""

import collections
import os
import pickle

import numpy as np
import pytest

from tf_lwdgh.converters import safe_pickle


def _write(tmp_path, content: bytes):
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    return path


class _Hostile:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_pickle_is_refused_by_name_and_does_not_run(tmp_path, protocol):
    proof = tmp_path / "proof"
    content = pickle.dumps({"data": _Hostile(os.system, f"touch {proof}")}, protocol)
    path = _write(tmp_path, content)
    with pytest.raises(safe_pickle.UnsafePickle, match=rf"{path} is refused: .*{os.name}\.system"):
        safe_pickle.load(path)
    assert not proof.exists()
    pickle.loads(content)  # the file was a real danger
    assert proof.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"c__builtin__\ngetattr\n.", "__builtin__.getattr"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile"),
        (b"ccopyreg\n_reconstructor\n.", "copyreg._reconstructor"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", "numpy.ndarray.dump"),
        (pickle.dumps(collections.Counter("aab")), "collections.Counter"),
    ],
)
def test_every_other_name_is_refused(tmp_path, content, name):
    with pytest.raises(safe_pickle.UnsafePickle, match=f"it asks for {name}"):
        safe_pickle.load(_write(tmp_path, content))


def test_allowed_names_cannot_be_turned_into_other_calls(tmp_path):
    for content in (
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"cnumpy\ndtype\n(cbuiltins\nlist\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nlist\n(I0\ntVb\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(VO8\nI0\nI1\ntRVabcdefgh\ntR.",
    ):
        with pytest.raises(safe_pickle.UnsafePickle, match="refused"):
            safe_pickle.load(_write(tmp_path, content))
    with pytest.raises(ValueError, match="no readable pickle"):  # an array of raw pointers
        safe_pickle.load(_write(tmp_path, b"cnumpy\nndarray\n((I1\ntVO8\nVabcdefgh\ntR."))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_numbers_and_containers_come_back_equal(tmp_path, protocol):
    content = {
        "image_data": np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "names": np.array(["ab", "c"]),
        b"bytes": [
            b"\xff\x00",
            bytearray(b"x"),
            {1, 2},
            frozenset([3]),
            (None, True, 1.5, 1 << 70),
        ],
        "label": np.int64(7),
        "ordered": collections.OrderedDict(a=1),
        "objects": np.array([[1, 2], None], dtype=object),
        "empty": np.zeros((0, 3), np.float32),
        "byte": b"",
    }
    loaded = safe_pickle.load(_write(tmp_path, pickle.dumps(content, protocol)))
    assert list(loaded) == list(content)
    for key, value in content.items():
        assert type(loaded[key]) is type(value)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(loaded[key], value, strict=True)
        else:
            assert loaded[key] == value


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_of_both_numpy_generations_load(tmp_path, core):
    content = pickle.dumps(np.arange(5, dtype=np.uint8), 2)
    for module in (b"numpy.core.", b"numpy._core."):
        content = content.replace(module, core + b".")
    np.testing.assert_array_equal(safe_pickle.load(_write(tmp_path, content)), np.arange(5))


def test_python_2_text_and_pixels_load_as_latin1(tmp_path):
    # cPickle.dumps({'data': numpy.array([200, 255], 'u1'), '\xe9': [1]}, 2) of Python 2
    content = (
        b"\x80\x02}q\x01(U\x04data"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\xc8\xfftbU\x01\xe9]K\x01au."
    )
    loaded = safe_pickle.load(_write(tmp_path, content))
    assert loaded["data"].dtype == np.uint8 and loaded["data"].tolist() == [200, 255]
    assert loaded["\xe9"] == [1]


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps(list(range(99)))[:-20]])
def test_damaged_pickle_is_named(tmp_path, content):
    with pytest.raises(ValueError, match=r"file\.pkl is no readable pickle"):
        safe_pickle.load(_write(tmp_path, content))
