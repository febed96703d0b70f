# SPDX-License-Identifier: Apache-2.0
"""What a search tunes: wrong spaces are named, gin makes right ones."""

from __future__ import annotations

import pytest

from tf_lwdgh import config
from tf_lwdgh.studies.definition import Method, Study
from tf_lwdgh.studies.space import Search

WRONG = [
    ({"LWDGH.unit": ("choice", [])}, r"space\['LWDGH.unit'\] must be \('choice', .*\('choice', \[\]\)"),
    ({"A.b": ("choice", [1, 1])}, "with different numbers"),
    ({"A.b": ("log", 0.0, 1.0)}, r"\('log', low, high\) of numbers with 0 < low < high"),
    ({"A.b": ("uniform", 2, 1)}, r"with low < high. Received: Search.space\['A.b'\] = \('uniform', 2, 1\)"),
    ({"A.b": ("int", 1, 2.5)}, r"\('int', low, high\) of integers"),
    ({"A.b": ("uniform", 1)}, "of numbers with low < high"),
    ({"A.b": ("normal", 0, 1)}, r"must be \('uniform', low, high\), \('log'.* = \('normal', 0, 1\)"),
    ({"A.b": 3}, r"Received: Search.space\['A.b'\] = 3"),
    ({"A b": ("uniform", 0, 1)}, "must have names of settings as its keys.*'A b'"),
    ({}, "Search.space must be a dict from bindings"),
]  # fmt: skip


@pytest.mark.parametrize(("space", "message"), WRONG)
def test_a_wrong_space_names_key_rule_and_value(space, message):
    with pytest.raises(ValueError, match=message):
        Search(method="LWDGH", space=space)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": 0}, "Search.trials must be an integer of at least 1. Received: Search.trials = 0"),
        ({"n_tasks": 1.5}, "Search.n_tasks must be an integer of at least 2"),
        ({"gin_params": "EPOCHS = 3"}, "Search.gin_params must be a list of texts"),
        ({"method": ["LWDGH", "Nobody"]}, "Search.method must name methods .*MAML, LWDGH.*: Nobody"),
        ({"method": ["LWDGH", "LWDGH"]}, "each once"),
        ({"method": 3}, "Search.method must be the name of a method"),
    ],
)
def test_other_settings_of_a_search_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        Study(
            title="s", methods=[Method("MAML"), Method("LWDGH")], baseline="MAML",
            search=Search(**{"method": "LWDGH", "space": {"OUTER_LR": ("log", 0.1, 1.0)}, **changes}),
        )  # fmt: skip


def test_gin_makes_a_search():
    config.parse([], ["Search.method = 'LWDGH'", "Search.space = {'OUTER_LR': ('log', 1e-4, 1e-2)}"])
    assert Search().dimensions()["OUTER_LR"].ends == (1e-4, 1e-2)
