# SPDX-License-Identifier: Apache-2.0
"""The shape of the repository: rooms and floors, which way imports point, sizes of files, versions in one place."""

from __future__ import annotations

import ast
import configparser
import os
import pathlib
import re
import stat
import sys

import pytest
from packaging.specifiers import SpecifierSet

from tf_lwdgh import versions

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tf_lwdgh"

# The rooms by floors, and in the hall the ground floor and the entry points. Imports point from later
# floors to earlier ones; between rooms of one floor there are none, and within a room there is no cycle.
FLOORS = (
    ("types", "versions", "annotations", "config", "files", "disk_faults", "registry", "command_line"),
    ("networks/kernels", "data", "aggregators"),
    ("networks/layers",),
    ("networks",),
    ("converters", "learners"),
    ("outer",),
    ("runs",),
    ("serving", "studies"),
    ("interface", "examinations", "server"),
    ("__main__", "train", "evaluate", "export", "predict", "serve", "study", "doctor", "list"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FLOOR_OF[""] = len(FLOORS)  # the package itself, which offers the interface
HALL = {*FLOORS[0], *FLOORS[-1]}
ENTRY_POINTS = set(FLOORS[-1])


def modules() -> dict[str, pathlib.Path]:
    """Every module of the package by its dotted name below tf_lwdgh."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: pathlib.Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole.removeprefix("tf_lwdgh.") in MODULES else node.module)
    ours = {n.removeprefix("tf_lwdgh").removeprefix(".") for n in names if n.startswith("tf_lwdgh")}
    return (ours & set(MODULES)) - {""}


def room(module: str) -> str:
    """The room that a module is in: the deepest folder that has a floor; in the hall, the module itself."""
    parts = module.split(".")
    for depth in range(len(parts), 0, -1):
        if "/".join(parts[:depth]) in FLOOR_OF:
            return "/".join(parts[:depth])
    return parts[0]


GRAPH = {name: imported(path) for name, path in MODULES.items()}
BETWEEN_ROOMS = {(room(m), room(target)) for m in GRAPH for target in GRAPH[m] if room(m) != room(target)}


@pytest.mark.parametrize("module", [m for m in MODULES if m])
def test_every_module_is_in_a_room_that_has_a_floor(module):
    assert room(module) in FLOOR_OF, f"{module}: say on which floor {room(module)} is"


def test_nothing_but_the_entry_points_and_the_ground_floor_stands_in_the_hall():
    standing = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert standing == HALL


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_to_earlier_floors_or_stay_in_the_room(module):
    for target in GRAPH[module]:
        here, there = room(module), room(target)
        if here != there and not FLOOR_OF[here] == FLOOR_OF[there] == 0:
            assert FLOOR_OF[there] < FLOOR_OF[here], f"{module} imports {target}, of a later floor"


def test_imports_have_no_cycle():
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for target in GRAPH[module]:
                visit(target, (*trail, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_rooms_form_no_cycle_and_few_arrows():
    """That they form none follows from the floors; the ground floor's is looked at too."""
    backwards = {(b, a) for a, b in BETWEEN_ROOMS} & BETWEEN_ROOMS
    assert not backwards
    doors = {*HALL, *FLOORS[-2], ""}  # what is open to all rooms, as the entry points are
    folders = {arrow for arrow in BETWEEN_ROOMS if not set(arrow) & doors}
    assert len(folders) <= 25, sorted(folders)


def test_tests_mirror_the_rooms():
    """A folder of tests is named like the room that it tests."""
    rooms = {path.parent.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders <= rooms


def test_nothing_imports_an_entry_point():
    importers = {m: GRAPH[m] & ENTRY_POINTS for m in GRAPH if GRAPH[m] & ENTRY_POINTS}
    assert not importers


@pytest.mark.parametrize("module", MODULES)
def test_a_module_opens_with_a_statement_and_has_one_idea(module):
    path = MODULES[module]
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert len(text.splitlines()) <= 400, f"{path} is too long to be one idea"


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = node.end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{module}.{node.name} has {lines} lines"


def test_only_one_module_knows_gin():
    users = [m for m, p in MODULES.items() if re.search(r"^\s*(import|from) gin\b", p.read_text(), re.M)]
    assert users == ["config"]


def test_the_gin_folder_holds_nothing_that_python_could_import():
    assert not list((ROOT / "gin").rglob("*.py"))


def texts() -> list[pathlib.Path]:
    """The files of the repository that people read."""
    folders = ("tf_lwdgh", "tests", "tools", "gin", "docs", "bench", ".ci")
    inside = [p for f in folders for p in (ROOT / f).rglob("*") if p.is_file()]
    top = [ROOT / n for n in ("README.md", "Makefile", "setup.py", "setup.cfg", "requirements.txt")]
    kinds = {".py", ".md", ".gin", ".sh", ".txt", ".cfg", "", ".json"}
    return [p for p in (*inside, *top) if p.suffix in kinds and "__pycache__" not in p.parts]


@pytest.mark.parametrize("path", texts(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_text_holds_a_path_of_one_machine(path):
    machine = re.compile(r"(?<![\w.])/(?:home|root|Users|work|opt)/\w")
    found = [line for line in path.read_text(encoding="utf-8").splitlines() if machine.search(line)]
    assert not found


def pins() -> dict[str, dict[str, str]]:
    """The version of each requirement by its marker ('' where there is none)."""
    found: dict[str, dict[str, str]] = {}
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([\w-]+)==([\w.]+)(?:; (.+))?", line)
            assert match, f"not pinned: {line!r}"
            found.setdefault(match[1], {})[match[3] or ""] = match[2]
    return found


def test_every_requirement_has_one_version_for_each_python():
    for name, pinned in pins().items():
        markers = {'python_version >= "3.11"', 'python_version < "3.11"'}
        assert set(pinned) in ({""}, markers), f"{name}: {pinned}"


def test_the_package_takes_a_range_of_every_requirement_and_the_pins_lie_in_it():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    sections = dict(zip(re.findall(r"# \[(\w+)\]", text), re.split(r"# \[\w+\]", text)[1:], strict=True))
    for section, ranges in {"run": versions.RANGES, **versions.EXTRAS}.items():
        pinned = set(re.findall(r"^([\w-]+)==", sections[section], re.M))
        assert pinned == set(ranges), section
        for name, taken in ranges.items():
            assert re.fullmatch(r">=[\d.]+,<\d+", taken), f"{name}{taken}"
            assert all(v in SpecifierSet(taken) for v in pins()[name].values()), f"{name}{taken}: {pins()[name]}"


def test_every_import_is_of_python_or_a_requirement():
    known = {
        "absl": "absl-py", "gin": "gin-config", "PIL": "pillow",
        "tensorflow_datasets": "tensorflow-datasets", "google_crc32c": "google-crc32c",
        "google": "tensorflow",  # protobuf, in a version that TensorFlow takes
        "prometheus_client": "prometheus-client", "python_multipart": "python-multipart",
        "h11": "uvicorn",  # in a version that it takes
        "xdist": "pytest-xdist",
    }  # fmt: skip
    ours = {"tf_lwdgh", "tests", "tools", "bench"}
    scripts = [p for folder in ("tests", "tools") for p in (ROOT / folder).rglob("*.py")]
    for path in [*MODULES.values(), *scripts]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {n.split(".")[0] for n in names} - ours - sys.stdlib_module_names:
                assert known.get(name, name) in pins(), f"{path} imports {name}"


def test_the_package_and_its_scripts_agree_on_the_pythons():
    taken = SpecifierSet(versions.PYTHON)
    script = (ROOT / "tools" / "setup.sh").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    minors = [minor for minor in range(6, 30) if taken.contains(f"3.{minor}.1")]
    assert (minors[0], minors[-1]) == (10, 13)
    assert 'target-version = "py310"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "(3, 10) <= sys.version_info[:2] <= (3, 13)" in script
    assert "3.10 to 3.13" in readme


def test_scripts_can_be_run_and_pytest_is_strict():
    assert os.stat(ROOT / ".ci" / "run").st_mode & stat.S_IXUSR
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert "--strict-markers" in settings["tool:pytest"]["addopts"]


def test_every_source_file_names_its_license():
    files = [p for folder in ("tf_lwdgh", "tests", "tools", "bench") for p in (ROOT / folder).rglob("*.py")]
    files += [*(ROOT / "tools").glob("*.sh"), ROOT / "setup.py", ROOT / ".ci/run"]
    line = "# SPDX-License-Identifier: Apache-2.0"
    assert [str(p) for p in files if line not in p.read_text(encoding="utf-8").splitlines()[:2]] == []
