# SPDX-License-Identifier: Apache-2.0
"""Methods are found by their files, and those of a user's own module by gin's import."""

from __future__ import annotations

import importlib
import sys

import pytest

from tests import tiny
from tf_lwdgh import aggregators, config, learners, registry
from tf_lwdgh.aggregators import Aggregator, Mean
from tf_lwdgh.learners import Learner
from tf_lwdgh.runs.experiment import Experiment

METHOD = '''
"""A method."""

import dataclasses
from typing import ClassVar

from tf_lwdgh import config
from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.types import Aggregated


class Base(Aggregator):
    """No method: it states no reference."""


@config.configurable
@dataclasses.dataclass(frozen=True)
class {name}(Aggregator):
    reference: ClassVar[str] = "the user"
    factor: float = 2.0

    def __call__(self, tasks, clock):
        return Aggregated([self.factor * g for g in tasks.mean], {{}}, {{}})
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A maker of packages of methods: from {module: class} to the package."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, files):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("from tf_lwdgh.aggregators import Mean\n")
        for module, method in files.items():
            (folder / f"{module}.py").write_text(METHOD.format(name=method))
        return importlib.import_module(name)

    return make


def test_every_file_of_a_package_is_found_without_a_list(package):
    found = registry.methods(package("some_methods", {"b": "Alpha", "a": "Beta"}), Aggregator)
    assert list(found) == ["Alpha", "Beta"]  # by name; Mean and Base are not theirs
    assert found["Alpha"].__module__ == "some_methods.b"


def test_two_methods_of_one_name_are_refused(package):
    message = "Gamma is defined by other_methods.a and other_methods.b"
    with pytest.raises(TypeError, match=message):
        registry.methods(package("other_methods", {"a": "Gamma", "b": "Gamma"}), Aggregator)


@pytest.mark.parametrize("room, base", [(aggregators, Aggregator), (learners, Learner)])
def test_what_the_rooms_hold_is_there_by_name(room, base):
    assert room.ALL and set(room.ALL.values()) <= set(registry.known(base))
    for name, method in room.ALL.items():
        assert getattr(room, name) is method and name in room.__all__
        assert method.reference and method.equation
        assert issubclass(method, base)


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """The name of a module of a user's own, on the path as the working directory is."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "users_own"
    (tmp_path / f"{name}.py").write_text(METHOD.format(name="UsersOwn"))
    yield name
    sys.modules.pop(name, None)


def test_a_gin_file_imports_a_users_own_module_and_a_saved_config_does_so_again(user_module, tmp_path):
    text = f"import {user_module}\n{tiny.TINY}\nExperiment.aggregator = @UsersOwn()\nUsersOwn.factor = 3.0\n"
    config.parse([tiny.write_gin(tmp_path, text)])
    aggregator = Experiment().aggregator
    assert (type(aggregator).__name__, aggregator.factor) == ("UsersOwn", 3.0)
    saved = tmp_path / "saved.gin"
    for written in (config.full_text(), config.operative_text()):
        saved.write_text(written, encoding="utf-8")
        config.parse([str(saved)])
        assert type(Experiment().aggregator).__name__ == "UsersOwn"
    config.parse([tiny.write_gin(tmp_path)], ["Experiment.aggregator = 'x'"])
    with pytest.raises(ValueError, match="one of .*@LWDGH.*@Mean.*@UsersOwn"):
        Experiment()


def test_a_module_that_is_not_there_is_named(tmp_path):
    path = tiny.write_gin(tmp_path, f"import no_such_module\n{tiny.TINY}")
    with pytest.raises(ValueError, match="import: No module named 'no_such_module'.*working directory"):
        config.parse([path])


def test_a_method_must_be_made_before_it_is_used(tmp_path):
    config.parse([tiny.write_gin(tmp_path)], ["Experiment.aggregator = @Mean"])
    with pytest.raises(ValueError, match="must be a ready object, with brackets: one of .*@Mean"):
        Experiment()
    assert isinstance(Mean(), Aggregator)
