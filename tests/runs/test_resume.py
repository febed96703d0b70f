# SPDX-License-Identifier: Apache-2.0
"""Which changes of the settings a run may be continued with."""

from __future__ import annotations

import pytest

from tests import tiny
from tf_lwdgh import config
from tf_lwdgh.runs import resume

SETTINGS = {
    "OuterLoop.epochs": "10",
    "LearningRate.decay": "'constant'",
    "LearningRate.warmup": "0.0",
    "InnerLoop.steps": "5",
    "PipelineConfig.storage": "'encoded'",
}


def _check(fingerprint="f", **changes):
    manifest = {"settings": SETTINGS, "fingerprint": "f"}
    new = {**SETTINGS, **{k.replace("__", "."): v for k, v in changes.items()}}
    resume.check(manifest, new, {"fingerprint": fingerprint}, "runs/x")


def test_the_same_settings_may_go_on():
    _check()


def test_a_changed_setting_is_refused_with_both_values():
    with pytest.raises(ValueError, match=r"InnerLoop.steps: was 5, now 3"):
        _check(InnerLoop__steps="3")


def test_a_new_setting_is_refused():
    with pytest.raises(ValueError, match=r"LWDGH.unit: was not set, now 'layer'"):
        _check(LWDGH__unit="'layer'")


def test_another_data_set_is_refused_with_both_fingerprints():
    with pytest.raises(ValueError, match="fingerprint was f, now it is g"):
        _check(fingerprint="g")


def test_of_a_mixture_the_changed_sets_are_shown_with_both_values():
    def part(fingerprint, share):
        return {"fingerprint": fingerprint, "share": share}

    old = {"a": part("fa", 0.5), "b": part("fb", 0.25), "c": part("fc", 0.25)}
    new = {"a": part("fa", 0.5), "b": part("other", 0.25), "d": part("fd", 0.25)}
    manifest = {"settings": SETTINGS, "fingerprint": "f", "datasets": old}
    with pytest.raises(ValueError, match="fingerprint was f, now it is g") as error:
        resume.check(manifest, SETTINGS, {"fingerprint": "g", "datasets": new}, "runs/x")
    for line in (
        "b: was share 0.25 with fingerprint fb, now share 0.25 with fingerprint other",
        "c: was share 0.25 with fingerprint fc, now no part",
        "d: was no part, now share 0.25 with fingerprint fd",
    ):
        assert f"\n  {line}\n" in str(error.value)
    assert "  a:" not in str(error.value)


def test_settings_that_change_no_number_may_change():
    _check(PipelineConfig__storage="'disk'", Evaluation__n_tasks="3", Threads__inter_op="2")


def test_cosines_may_be_left_out_later_but_what_counts_as_strong_conflict_may_not_change():
    _check(ConflictReport__cosines="False")
    with pytest.raises(ValueError, match="ConflictReport.threshold: was not set, now -0.5"):
        _check(ConflictReport__threshold="-0.5")


@pytest.mark.parametrize("mode", ["'cosine'", "'cosine_held'", "'fixed'"])
def test_a_run_with_explore_exploit_may_not_be_made_longer(mode):
    old = {**SETTINGS, "Experiment.explore": "@ExploreExploit()", "ExploreExploit.mode": mode}
    changed = resume.differences(old, {**old, "OuterLoop.epochs": "20"})
    assert changed == [("OuterLoop.epochs", "10", "20")]


def test_a_run_whose_explore_exploit_is_off_may_be_made_longer():
    off = {**SETTINGS, "Experiment.explore": "@ExploreExploit()", "ExploreExploit.mode": "'off'"}
    none = {**SETTINGS, "Experiment.explore": "None"}
    for old in (off, none):
        assert resume.differences(old, {**old, "OuterLoop.epochs": "20"}) == []


def test_only_what_is_used_is_a_setting_so_that_no_schedule_means_none(tmp_path):
    """The names that `_depends_on_length` looks at are those that gin gives an experiment."""
    tiny.build(tmp_path)
    assert config.settings()["ExploreExploit.mode"] == "'cosine'"
    tiny.build(tmp_path, "Experiment.explore = None")
    assert "ExploreExploit.mode" not in config.settings()
    assert {"OuterLoop.epochs", "LearningRate.decay", "LearningRate.warmup"} <= set(config.settings())


def test_a_run_may_be_made_longer_where_nothing_depends_on_its_length():
    _check(OuterLoop__epochs="20")


@pytest.mark.parametrize(
    "old",
    [
        {"LearningRate.decay": "'cosine'"},
        {"LearningRate.warmup": "0.1"},
    ],
)
def test_a_run_may_not_be_made_longer_where_a_schedule_depends_on_its_length(old):
    old = {**SETTINGS, **old}
    assert resume.differences(old, {**old, "OuterLoop.epochs": "20"}) == [
        ("OuterLoop.epochs", "10", "20")
    ]


def test_more_epochs_are_offered_only_where_they_will_be_accepted():
    moving = {**SETTINGS, "LearningRate.decay": "'cosine'"}
    assert "--gin_param='OuterLoop.epochs = …'" in resume.how_to_train_on(SETTINGS, "runs/x")
    said = resume.how_to_train_on(moving, "runs/x")
    assert "epochs" not in said and "--gin_param=\"Experiment.start = 'runs/x'\"" in said


def test_a_run_that_cannot_be_made_longer_may_be_started_from():
    manifest = {"settings": {**SETTINGS, "LearningRate.decay": "'cosine'"}, "fingerprint": "f"}
    longer = {**manifest["settings"], "OuterLoop.epochs": "20"}
    with pytest.raises(ValueError, match="(?s)was 10, now 20.*Experiment.start = 'runs/x'"):
        resume.check(manifest, longer, {"fingerprint": "f"}, "runs/x")


def test_a_run_may_not_be_made_shorter():
    with pytest.raises(ValueError, match="OuterLoop.epochs: was 10, now 5"):
        _check(OuterLoop__epochs="5")
