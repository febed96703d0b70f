# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole or absent, verified, the newest whole one wins."""

from __future__ import annotations

import logging
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_lwdgh.runs import checkpoints
from tf_lwdgh.runs.checkpoints import CheckpointError, CheckpointFolder


def _state(value: float, shape=(3,)):
    return {"model": {"0/kernel": tf.Variable(tf.fill(shape, value))}}


def _value(state) -> float:
    return float(state["model"]["0/kernel"].numpy()[0])


def test_what_was_saved_is_loaded_with_its_manifest(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(7, _state(2.5), {"best_accuracy": 0.5})
    manifest = folder.newest()
    state = _state(0.0)
    folder.load(manifest, state)
    assert _value(state) == 2.5
    assert (manifest["step"], manifest["best_accuracy"]) == (7, 0.5)


def test_only_the_newest_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (1, 2, 3):
        folder.save(step, _state(step), {})
    assert folder.steps() == [2, 3]


def test_no_checkpoint_is_none(tmp_path):
    assert CheckpointFolder(tmp_path / "nothing").newest() is None


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [_truncate, _flip, lambda p: p.unlink()])
@pytest.mark.parametrize(
    "name", ["state.index", "state.data-00000-of-00001", "manifest.json"]
)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog, damage, name):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, _state(1.0), {})
    folder.save(2, _state(2.0), {})
    damage(tmp_path / "step-00000002" / name)
    with caplog.at_level(logging.WARNING, logger="tf_lwdgh"):
        manifest = folder.newest()
    assert manifest["step"] == 1
    assert "step-00000002 is not whole" in caplog.text and "going back to step 1" in caplog.text


def test_nothing_but_damaged_checkpoints_is_an_error_that_names_them(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, _state(1.0), {})
    _truncate(tmp_path / "step-00000001" / "state.index")
    with pytest.raises(CheckpointError, match="none of the checkpoints .* is whole .*step-00000001"):
        folder.newest()


def test_an_unfinished_folder_is_no_checkpoint_and_is_cleared(tmp_path):
    folder = CheckpointFolder(tmp_path)
    (tmp_path / ".unfinished-1").mkdir()
    assert folder.newest() is None
    folder.save(1, _state(1.0), {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_step_can_be_saved_again(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, _state(1.0), {})
    folder.save(1, _state(3.0), {})
    state = _state(0.0)
    folder.load(folder.newest(), state)
    assert _value(state) == 3.0


@pytest.mark.parametrize(
    "other",
    [
        _state(0.0, shape=(4,)),
        {"model": {"0/other": tf.Variable([0.0, 0, 0])}},
        {"model": {"0/kernel": tf.Variable([0.0, 0, 0]), "1/more": tf.Variable(1.0)}},
    ],
)
def test_another_model_is_refused(tmp_path, other):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, _state(1.0), {})
    with pytest.raises(CheckpointError, match="does not fit this model"):
        folder.load(folder.newest(), other)


def test_fewer_variables_than_saved_are_refused(tmp_path):
    folder = CheckpointFolder(tmp_path)
    two = {"model": {"0/kernel": tf.Variable([1.0]), "1/bias": tf.Variable([1.0])}}
    folder.save(1, two, {})
    with pytest.raises(CheckpointError, match="does not fit this model"):
        folder.load(folder.newest(), {"model": {"0/kernel": tf.Variable([0.0])}})


def test_one_group_of_several_can_be_loaded(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, {**_state(4.0), "optimizer": {"0/m": tf.Variable(1.0)}}, {})
    state = _state(0.0)
    folder.load(folder.newest(), state)
    assert _value(state) == 4.0


def test_a_model_and_an_adam_come_back_to_the_bit(tmp_path):
    def make(seed):
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="head")])
        optimizer = keras.optimizers.Adam()
        optimizer.build(model.trainable_variables)
        state = {
            "model": checkpoints.model_variables(model),
            "optimizer": checkpoints.optimizer_variables(optimizer),
        }
        return model, optimizer, state

    model, optimizer, state = make(0)
    optimizer.apply([tf.ones_like(v) for v in model.trainable_variables])
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state, {})
    other, other_optimizer, other_state = make(1)
    folder.load(folder.newest(), other_state)
    for saved, loaded in zip(
        [*model.variables, *optimizer.variables], [*other.variables, *other_optimizer.variables]
    ):
        np.testing.assert_array_equal(np.array(saved), np.array(loaded))
    assert int(other_optimizer.iterations) == 1


def test_no_flipped_bit_of_a_manifest_is_taken(tmp_path):
    """Each is refused, or leaves every value as it was (a bit in a blank, say)."""
    folder = CheckpointFolder(tmp_path)
    extra = {"best_accuracy": 0.5, "best_step": 3, "settings": {"OuterLoop.epochs": "3"}, "fingerprint": "f"}
    folder.save(1, _state(1), {})
    path = pathlib.Path(folder.save(2, _state(2), extra), "manifest.json")
    whole, right = path.read_bytes(), folder.newest()
    for at in range(8 * len(whole)):
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        path.write_bytes(bytes(data))
        assert folder.newest() in (right, {**folder.newest(), "step": 1}), at


@pytest.mark.parametrize("content", ["{}", "[]", "[" * 10_000, '{"sha256": null}', "null", "\x00"])
def test_a_manifest_that_is_none_is_passed_over(tmp_path, content):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, _state(1), {})
    pathlib.Path(folder.save(2, _state(2), {}), "manifest.json").write_text(content, encoding="utf-8")
    assert folder.newest()["step"] == 1


def test_a_file_in_a_checkpoints_place_is_passed_over(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, _state(1), {})
    (tmp_path / "step-00000002").write_text("no folder", encoding="utf-8")
    assert folder.newest()["step"] == 1
