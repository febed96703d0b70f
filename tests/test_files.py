# SPDX-License-Identifier: Apache-2.0
"""Files appear whole or not at all, with the mode of any other."""

import os

import pytest

from tf_lwdgh import files


def test_text_bytes_and_json_are_written_into_folders_that_are_made(tmp_path):
    files.write(tmp_path / "a/b.txt", "ä\n")
    files.write(tmp_path / "a/b.bin", b"\0\1", durable=False)
    files.write_json(tmp_path / "c.json", {"x": [1, None]})
    assert (tmp_path / "a/b.txt").read_bytes() == "ä\n".encode()
    assert (tmp_path / "a/b.bin").read_bytes() == b"\0\1"
    assert (tmp_path / "c.json").read_text() == '{\n "x": [\n  1,\n  null\n ]\n}'
    assert sorted(os.listdir(tmp_path / "a")) == ["b.bin", "b.txt"]  # nothing is left aside


def test_the_mode_is_that_of_a_file_opened_by_hand(tmp_path):
    (tmp_path / "by_hand").write_text("")
    files.write(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "by_hand").stat().st_mode


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    files.write(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["kept"]


def test_a_folder_in_the_files_place_is_named(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError, match="f"):
        files.write(tmp_path / "f", "x")
    assert os.listdir(tmp_path) == ["f"]
