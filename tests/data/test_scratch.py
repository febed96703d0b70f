# SPDX-License-Identifier: Apache-2.0
"""Working folders of conversions: gone at the end, gone after a kill, and left alone while in use."""

import os

import pytest

from tf_lwdgh.data.store import scratch_folder


def test_a_scratch_folder_lies_beside_the_output_and_goes(tmp_path):
    with scratch_folder(tmp_path / "data" / "set", "partial") as folder:
        assert folder.parent == tmp_path / "data" and folder.name.startswith(".set.partial-")
        (folder / "a").mkdir()
    with pytest.raises(KeyError), scratch_folder(tmp_path / "data" / "set", "partial"):
        raise KeyError
    assert list((tmp_path / "data").iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_is_in_use_stays(tmp_path):
    child = os.fork()
    if not child:
        held = scratch_folder(tmp_path / "s[1]", "partial")
        held.__enter__()
        os._exit(9)  # as a kill: nothing is cleaned up
    os.waitpid(child, 0)
    (killed,) = tmp_path.iterdir()
    with scratch_folder(tmp_path / "s[1]", "unpacked"), scratch_folder(tmp_path / "s", "partial"):
        assert killed.exists()  # another kind, another output
    with scratch_folder(tmp_path / "s[1]", "partial") as first:
        assert not killed.exists()
        with scratch_folder(tmp_path / "s[1]", "partial") as second:
            assert first.exists() and second != first
