# SPDX-License-Identifier: Apache-2.0
"""The package as it is installed: its gin files by name, its commands, and what importing it imports."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest

import tf_lwdgh
from tf_lwdgh import __main__ as commands
from tf_lwdgh import config
from tf_lwdgh import list as listing

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = {
    "tiered_resnet12": "tiered_resnet12.gin",
    "tiered_resnet12.gin": "tiered_resnet12.gin",
    "gin/tiered_resnet12.gin": "tiered_resnet12.gin",
    "gin/tiered_resnet12": "tiered_resnet12.gin",
    "learners/boil": "learners/boil.gin",
    "aggregators/pcgrad": "aggregators/pcgrad.gin",
}


def _python(folder: pathlib.Path, path: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    """Python in a folder that is no clone, with the package that lies in `path`."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """A folder with what a wheel holds: the package, and its gin files in it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "setup.cfg", "requirements.txt", "README.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for name in ("tf_lwdgh", "gin"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path_factory.mktemp("installed")
    done = _python(source, source, "setup.py", "--quiet", "build", "--build-lib", str(folder))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return folder


def test_a_wheel_holds_every_module_every_gin_file_and_the_mark_of_types(installed):
    for kind in ("*.py", "py.typed"):
        ours = {p.relative_to(ROOT) for p in (ROOT / "tf_lwdgh").rglob(kind)}
        assert ours == {p.relative_to(installed) for p in installed.rglob(kind)}
    gin_files = {p.relative_to(ROOT / "gin") for p in (ROOT / "gin").rglob("*.gin")}
    assert gin_files == {p.relative_to(installed / "tf_lwdgh/gin") for p in installed.rglob("*.gin")}


READ = """
import sys
from tf_lwdgh import config
from tf_lwdgh.runs.experiment import Experiment
from tf_lwdgh.data.dataset_config import DatasetConfig
for name in sys.argv[1:]:
    print(config.find(name))
config.parse(['tiered_resnet12', 'learners/boil', 'gin/aggregators/pcgrad.gin', 'mine'])
made = Experiment()
methods = type(made.learner), type(made.aggregator), made.backbone
print(*(m.__name__ for m in methods), DatasetConfig().name, made.seed)
config.parse(['glyphs'])
print(Experiment().seed)
"""


def test_an_installed_package_finds_its_gin_files_by_name_and_the_users_own_first(installed, tmp_path):
    (tmp_path / "mine.gin").write_text("include 'shots/5shot'\nSEED = 7\n", encoding="utf-8")
    (tmp_path / "glyphs.gin").write_text("include 'gin/glyphs.gin'\nSEED = 8\n", encoding="utf-8")
    done = _python(tmp_path, installed, "-c", READ, *NAMES)
    assert done.returncode == 0, done.stderr
    *found, made, own = done.stdout.splitlines()
    assert found == [str(installed / "tf_lwdgh/gin" / path) for path in NAMES.values()]
    assert made == "BOIL PCGrad resnet12 tiered_imagenet 7"
    assert own == "8"


@pytest.mark.parametrize("name", NAMES)
def test_a_clone_finds_them_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find(name) == str(ROOT / "gin" / NAMES[name])
    own = tmp_path / "gin" / NAMES[name]
    own.parent.mkdir(parents=True)
    own.write_text("", encoding="utf-8")
    assert os.path.abspath(config.find(name)) == str(own)


@pytest.mark.parametrize(
    "name, near",
    [("boil", "learners/boil"), ("gin/pcgrad.gin", "aggregators/pcgrad"), ("tiered_resnet", "tiered_resnet12")],
)
def test_a_name_that_is_none_is_told_what_is_near(name, near):
    with pytest.raises(FileNotFoundError, match=f"no such file. Received: '{name}'.*Did you mean {near}.*list"):
        config.parse([name])


def test_the_list_has_a_line_for_every_gin_file_but_the_shared_one():
    files = {str(p.relative_to(ROOT / "gin").with_suffix("")) for p in (ROOT / "gin").rglob("*.gin")}
    entries = listing.entries()
    assert {e.name for e in entries} == files - {"base"}
    assert all(4 <= len(e.line) <= listing.WIDTH and not e.line.startswith("#") for e in entries), entries
    assert all(config.find(e.name) is not None for e in entries)
    text = listing.listed([])
    for kind in ("experiments", "learners", "aggregators", "studies", "datasets"):
        assert f"\n{kind}:\n" in f"\n{text}"
    assert listing.listed(["aggregators", "conflict"]).splitlines()[0] == "aggregators:"
    with pytest.raises(ValueError, match="nothing is called 'owls'. The kinds are experiments, recipes, learners"):
        listing.listed(["owls"])


@pytest.mark.parametrize("command", ["train", "doctor", "list", "convert"])
def test_a_command_and_its_module_are_the_same_program(command, tmp_path):
    by_name = _python(tmp_path, ROOT, "-m", "tf_lwdgh", command, "--help")
    by_module = _python(tmp_path, ROOT, "-m", commands.module(command), "--help")
    assert by_name.stdout == by_module.stdout and len(by_name.stdout) > 200
    assert by_name.returncode == by_module.returncode


def test_a_module_that_comes_later_is_a_command_and_gets_its_arguments(installed, tmp_path):
    command = next(c for c in ("predict", "serve") if c in commands.COMMANDS)
    program = installed / "tf_lwdgh" / f"{command}.py"
    before = program.read_text(encoding="utf-8") if program.exists() else None
    program.write_text("import sys\nimport of_mine\nprint(__name__, *sys.argv[1:])\n", encoding="utf-8")
    (tmp_path / "of_mine.py").write_text("", encoding="utf-8")  # a script of the system's would not see it
    try:
        main = "import sys; sys.path[0] = ''; from tf_lwdgh.__main__ import main; main()"
        done = _python(tmp_path, installed, "-c", main, command, "--run_dir=x", "more")
        assert done.stdout == "__main__ --run_dir=x more\n", done.stderr
        assert f"\n  {command} " in _python(tmp_path, installed, "-m", "tf_lwdgh").stdout
    finally:
        program.unlink() if before is None else program.write_text(before, encoding="utf-8")


def test_a_missing_package_is_said_with_the_extra_that_brings_it(monkeypatch, capsys):
    wanted = ["absl-py<3,>=2.1", 'some-server<2,>=1; extra == "serve"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)

    def run(*_, **__):
        raise ModuleNotFoundError("No module named 'some_server'", name="some_server.http")

    monkeypatch.setattr(runpy, "run_module", run)
    monkeypatch.setattr(sys, "argv", ["tf-lwdgh", "list"])
    with pytest.raises(SystemExit) as left:
        commands.main()
    assert left.value.code == commands.USER_ERROR
    said = capsys.readouterr().err
    assert "tf-lwdgh list needs the package some_server, which is not installed" in said
    assert "pip install 'tf_lwdgh[serve]'" in said


@pytest.mark.parametrize("line", [["owls"], ["--verbose"]])
def test_no_such_command_is_exit_code_2_and_the_list(line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tf-lwdgh", *line])
    with pytest.raises(SystemExit) as left:
        commands.main()
    assert left.value.code == commands.USER_ERROR
    assert re.search(r"no such command: .*\n\nusage: .*\n\n  train ", capsys.readouterr().err)


def test_the_version_is_told_and_is_the_citations(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tf-lwdgh", "--version"])
    commands.main()
    assert capsys.readouterr().out == f"tf_lwdgh {tf_lwdgh.__version__}\n"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {tf_lwdgh.__version__}\n" in citation


IMPORTS = """
import pkgutil, sys
def heavy(*names): return sorted(set(names) & {name.partition('.')[0] for name in sys.modules})
import tf_lwdgh
print(heavy('numpy', 'absl', 'gin', 'tensorflow', 'keras'))
from tf_lwdgh.__main__ import commands, module
for name in commands():
    __import__(module(name))
print(heavy('tensorflow', 'keras', 'tensorflow_datasets'))
print(callable(tf_lwdgh.train), callable(tf_lwdgh.export), tf_lwdgh.train is sys.modules['tf_lwdgh.train'])
rooms = [m.name for m in pkgutil.iter_modules(tf_lwdgh.__path__) if m.ispkg and m.name not in ('gin', 'converters')]
for room in rooms:
    for m in pkgutil.iter_modules(__import__(f'tf_lwdgh.{room}', fromlist=['x']).__path__, f'tf_lwdgh.{room}.'):
        __import__(m.name)
import tf_lwdgh.converters.folders, tf_lwdgh.converters.glyphs, tf_lwdgh.converters.commands.glyphs
print(heavy('tensorflow_datasets', 'ray', 'optuna'), heavy('tensorflow'))
"""


def test_importing_is_light_and_tensorflow_datasets_is_imported_by_what_uses_it_alone(tmp_path):
    done = _python(tmp_path, ROOT, "-c", IMPORTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]", "True True False", "[] ['tensorflow']"]
    assert done.stderr == ""


def test_what_the_package_offers_is_listed_and_nothing_else_is_there():
    assert set(tf_lwdgh.__all__) <= set(dir(tf_lwdgh))
    for name in tf_lwdgh.__all__:
        assert getattr(tf_lwdgh, name).__module__.startswith("tf_lwdgh.interface.")
        assert getattr(tf_lwdgh, name).__doc__
    with pytest.raises(AttributeError, match="module 'tf_lwdgh' has no attribute 'owls'"):
        tf_lwdgh.owls  # noqa: B018


def test_what_runs_before_a_commit_and_in_ci_is_local_and_covers_every_python():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (\S+)", hooks) == ["local"]
    ci = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert re.findall(r'"(3\.\d+)"', ci) == ["3.10", "3.11", "3.12", "3.13"]
    assert "run: .ci/run" in ci
    script = (ROOT / "tools/test.sh").read_text(encoding="utf-8")
    for tool in ("ruff check", "mypy"):
        assert f'"$PY" -m {tool}' in script and f".venv/bin/python -m {tool}" in hooks
