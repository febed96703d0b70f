# SPDX-License-Identifier: Apache-2.0
"""Every study in gin/studies: it reads, every cell of it builds, and it says what the paper says."""

from __future__ import annotations

import itertools
import pathlib
import re

import pytest

from tests import test_gin_files as gin_files
from tf_lwdgh.studies import conduct, jobs

ROOT = pathlib.Path(__file__).parents[2]
ON_TOP = ["gin/studies/small.gin", "gin/studies/small_glyphs.gin", "gin/studies/tiny.gin"]
STUDIES = [f for f in gin_files.STUDIES if f not in ON_TOP]


def cells(*paths: str):
    study = conduct.from_gin(paths)
    return study, jobs.make(study, data_dir="data", out="out")


@pytest.mark.parametrize("path", STUDIES)
def test_every_cell_builds(path):
    _, made = cells(path)
    assert made
    for job in {j.gin_files + j.gin_params: j for j in made}.values():
        gin_files.check_all(*job.gin_files, params=job.gin_params)


@pytest.mark.parametrize("on_top", ON_TOP)
@pytest.mark.parametrize("path", [f for f in STUDIES if "table" in f or "figure" in f])
def test_every_cell_builds_made_small(path, on_top):
    study, made = cells(path, on_top)
    assert study.variant
    for job in made[:4]:
        gin_files.check_all(*job.gin_files, params=job.gin_params)


@pytest.mark.parametrize("path", gin_files.STUDIES)
def test_the_header_names_the_command(path):
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    comments = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert comments[-1].startswith("# Command: ") and path in comments[-1]


def test_the_papers_tables_and_figures_are_all_there():
    names = {pathlib.Path(f).stem for f in STUDIES}
    assert {f"table{i}" for i in range(1, 7)} | {"figure2", "figure4", "figure5"} <= names


@pytest.mark.parametrize("path", [f for f in STUDIES if "table" in f])
def test_every_method_of_the_papers_tables_is_trained(path):
    study = conduct.from_gin([path])
    assert not [m.name for m in study.methods if m.absent]


# Read off the paper's tables once more, row by row, apart from the gin files.
LWDGH = {
    "table1": {"1-shot": "51.40 ± 1.76", "5-shot": "67.06 ± 0.97"},
    "table2": {"1-shot, Convnet4": "53.63 ± 1.80", "1-shot, Resnet12": "60.93 ± 1.91",
               "5-shot, Convnet4": "67.75 ± 0.97"},
    "table3": {"": "59.13 ± 2.01"},
    "table4": {"1-shot": "58.13 ± 1.73", "5-shot": "68.11 ± 0.97"},
}  # fmt: skip


@pytest.mark.parametrize("table", LWDGH)
def test_the_published_figures_of_lwdgh_stand_in_their_settings(table):
    study, _ = cells(f"gin/studies/{table}.gin")
    method = next(m for m in study.methods if m.name == "MAML + LWDGH")
    assert {s.name: method.published_in(s.name) for s in study.settings} == LWDGH[table]
    assert method.source == f"the paper, Table {table[-1]}"


def test_table_1_has_the_papers_sixteen_methods():
    study, _ = cells("gin/studies/table1.gin")
    assert len(study.methods) == 16
    assert all(re.fullmatch(r"\d\d\.\d\d ± \d\.\d\d", m.published_in("1-shot")) for m in study.methods)
    absent = {m.name for m in study.methods if m.absent}
    assert all(bool(m.gin_files) != bool(m.absent) for m in study.methods)
    assert "MAML" not in absent


def test_the_studies_of_methods_and_learners_have_every_fragment():
    used = set()
    for name in ("methods", "learners"):
        study, _ = cells(f"gin/studies/{name}.gin")
        used |= {f for m in study.methods for f in m.gin_files}
    rooms = (*gin_files.ROOMS["aggregators"], *gin_files.ROOMS["learners"])
    assert set(rooms) - used == {"gin/aggregators/explore_exploit.gin", "gin/learners/maml.gin"}
