# SPDX-License-Identifier: Apache-2.0
"""Studies from gin: what a cell is made of, and what is refused."""

import pytest

from tests.studies import tiny_studies
from tf_lwdgh.studies import conduct, jobs

TEXT = """
Study.title = 'T'
Study.experiment = ['e.gin']
Study.gin_params = ['A = 1']
Study.methods = [@a/Method(), @b/Method()]
Study.settings = [@one/Setting(), @five/Setting()]
Study.last_gin_files = ['last.gin']
Study.last_gin_params = ['Z = 1']
Study.baseline = 'MAML'
Study.seeds = (3, 1)
Study.evaluation = ['Evaluation.n_tasks = 7']
Method.source = 'the paper'
a/Method.name = 'MAML'
a/Method.gin_files = ['mean.gin']
a/Method.published = {'1-shot': '48.17 ± 1.75'}
b/Method.name = 'MAML + LWDGH'
b/Method.gin_files = ['lwdgh.gin']
b/Method.gin_params = ['LWDGH.temperature = 2']
b/Method.gin_params_in = {'5-shot': ['LWDGH.temperature = 3']}
one/Setting.name = '1-shot'
five/Setting.name = '5-shot'
five/Setting.gin_files = ['5.gin']
five/Setting.gin_params = ['K = 5']
"""


def made(text=TEXT, **more):
    return jobs.make(tiny_studies.study(text), data_dir="d", out="o", **more)


def test_files_and_bindings_go_on_top_of_each_other_in_the_stated_order():
    job = next(j for j in made() if j.setting == "5-shot" and j.method == "MAML + LWDGH")
    assert job.gin_files == ("e.gin", "5.gin", "lwdgh.gin", "last.gin")
    assert job.gin_params == (
        "A = 1", "K = 5", "LWDGH.temperature = 2", "LWDGH.temperature = 3", "Z = 1", "Experiment.seed = 3"
    )  # fmt: skip
    other = next(j for j in made() if j.setting == "1-shot" and j.method == "MAML + LWDGH")
    assert other.gin_params == ("A = 1", "LWDGH.temperature = 2", "Z = 1", "Experiment.seed = 3")
    assert job.evaluation == ("Evaluation.n_tasks = 7",)


def test_a_whole_table_of_the_first_seed_comes_before_the_second():
    names = [(j.seed, j.setting, j.method) for j in made()]
    assert names[:4] == [
        (3, "1-shot", "MAML"), (3, "1-shot", "MAML + LWDGH"),
        (3, "5-shot", "MAML"), (3, "5-shot", "MAML + LWDGH"),
    ]  # fmt: skip
    assert [n[0] for n in names] == [3] * 4 + [1] * 4
    assert len({j.run_dir for j in made()}) == len({j.result_path for j in made()}) == 8


def test_a_run_lies_where_its_name_says():
    job = made()[1]
    assert job.run_dir.endswith("o/runs/1_shot/maml_plus_lwdgh/seed3")
    assert job.result_path.endswith("o/results/1_shot-maml_plus_lwdgh-seed3.json")


def test_only_chooses_methods_whatever_the_case():
    assert {j.method for j in made(only="*lwdgh")} == {"MAML + LWDGH"}
    with pytest.raises(ValueError, match="--only must fit a method: MAML, MAML . LWDGH.*'x'"):
        made(only="x")


def test_an_absent_method_has_a_row_and_no_job():
    text = TEXT + "b/Method.absent = 'not here'"
    assert {j.method for j in made(text)} == {"MAML"}
    assert len(tiny_studies.study(text).methods) == 2


def test_published_figures_are_found_by_setting():
    a, b = tiny_studies.study(TEXT).methods
    assert a.published_in("1-shot") == "48.17 ± 1.75" and a.published_in("5-shot") == ""
    assert a.source == b.source == "the paper" and b.published_in("1-shot") == ""


@pytest.mark.parametrize(
    "more, message",
    [
        ("Study.title = ''", "Study.title must be a text with letters or digits. Received: ''"),
        ("Study.baseline = 'x'", "Study.baseline must be the name .* MAML, MAML . LWDGH.*'x'"),
        ("Study.seeds = (1, 1)", r"Study.seeds \(--seeds\) must be different integers"),
        ("Study.seeds = ()", "at least one"),
        ("Study.seeds = (1.5,)", "must be different integers"),
        ("Study.checkpoint = 'first'", "Study.checkpoint must be 'last' or 'best'.*'first'"),
        ("Study.methods = []", "Study.methods must be a list"),
        ("Study.methods = [@a/Method]", "ready objects, with brackets, such as @name/Method"),
        ("b/Method.name = 'maml'", "different names, in folders too. Received twice: maml"),
        ("one/Setting.name = '5 shot'", "Study.settings must have different names"),
        ("Study.gin_params = 'A = 1'", "Study.gin_params must be a list of texts"),
        ("a/Method.gin_files = 'x.gin'", "Method.gin_files must be a list of texts"),
        ("b/Method.gin_params_in = {'9-shot': ['A = 2']}", "settings of the study: 1-shot, 5-shot. .*LWDGH': 9-shot"),
        ("b/Method.gin_params_in = {'5-shot': 'A = 2'}", "must hold a list of texts for each setting. .*'A = 2'"),
        ("a/Method.start = 'MAML + LWDGH'", "stands above 'MAML' in Study.methods: there is none. Received: .*LWDGH'"),
        ("b/Method.start = 'maml'", "stands above 'MAML . LWDGH' in Study.methods: MAML. Received: .*'maml'"),
        ("a/Method.absent = 'no'\nb/Method.start = 'MAML'", "trained here and .*: there is none. Received"),
        ("a/Method.name = '+'", None),
    ],
)
def test_what_is_wrong_is_named(more, message):
    if message is None:  # a name of signs alone still has a folder
        assert tiny_studies.study(TEXT + more + "\nStudy.baseline = '+'").methods[0].name == "+"
        return
    with pytest.raises(ValueError, match=message):
        tiny_studies.study(TEXT + more)


def test_seeds_and_bindings_of_the_command_line_come_last(tmp_path):
    path = tmp_path / "s.gin"
    path.write_text(TEXT, encoding="utf-8")
    study = conduct.from_gin([str(path)], seeds=["7", "8"], cell_params=["EPOCHS = 1"])
    assert study.seeds == (7, 8) and study.last_gin_params == ("Z = 1", "EPOCHS = 1")
    with pytest.raises(ValueError, match="--seeds must be integers by commas.*'x,2'"):
        conduct.from_gin([str(path)], seeds=["x", "2"])


def test_variant_stands_beside_the_title():
    assert tiny_studies.study(TEXT + "Study.variant = 'small'").heading == "T (small)"
