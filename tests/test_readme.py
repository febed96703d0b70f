# SPDX-License-Identifier: Apache-2.0
"""Every command and snippet that the README shows runs, in order, in a copy, without a network.

Long ones run with shortened settings; SUBSTITUTES lists everything that is not run as it stands.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

TINY = {
    "EPOCHS": 1, "STEPS_PER_EPOCH": 2, "IMAGE_SIZE": 16, "N_QUERY": 2, "VAL_TASKS": 2,
    "INNER_STEPS": 1, "TEST_INNER_STEPS": 1,
    "convnet4.fused": False,  # compiling its blocks takes longer than the steps
}  # fmt: skip
SHORT = " ".join(f"--gin_param='{name} = {value}'" for name, value in TINY.items())
FEW_TASKS = "--gin_param='Evaluation.n_tasks = 3'"

with socket.create_server(("127.0.0.1", 0)) as _free:
    PORT = str(_free.getsockname()[1])  # in place of the server's own, which may be taken
READY = f"curl -sf --retry 500 --retry-delay 1 --retry-connrefused http://127.0.0.1:{PORT}/healthz/ready"

# What is run in place of a command that begins so; {} is the command. The first that fits counts.
SUBSTITUTES = (
    ("make demo", "make --dry-run demo"),  # its scripts follow
    ("make test", "make --dry-run test"),
    ("bash tools/demo.sh", f"{{}} {SHORT}"),
    ("bash tools/test.sh", "WORKERS=0 {} --collect-only tests/test_layout.py"),
    ("python -m tf_lwdgh.train", f"{{}} {SHORT}"),
    ("python -m tf_lwdgh.evaluate", f"{{}} {FEW_TASKS}"),
    ("python -m tf_lwdgh.study", "{} --only=MAML --noestimate"),  # one of its runs
    ("python -m tf_lwdgh.serve", f"{{}} --port={PORT} > served.log 2>&1 & echo $! > served.pid; {READY}"),
    ("tensorboard", "{} --inspect"),  # reads what the server would, and ends
    ("python -m mkdocs build", "{} --help"),  # tests/test_site.py builds it
    ("python -m pip install --editable .", "python setup.py --version"),  # pip would download
)
# Commands that need files which cannot be had here must say that the files are missing.
MISSING = ("python tools/convert_omniglot.py", "python tools/convert_mini_imagenet.py")
# What a command must print.
PRINTS = {
    "make demo": "bash tools/setup.sh\nbash tools/demo.sh\n",
    "make test": "bash tools/setup.sh\nbash tools/test.sh\n",
    "bash tools/demo.sh": "learns new characters",
    "bash tools/demo": "BatchNorm inductive: ",  # and what an export loses, of the evaluation
    "python -m tf_lwdgh.evaluate": " ± ",
    "python -m tf_lwdgh.evaluate --run_dir=runs/lwdgh --compare": "paired over 3 tasks",
    "python -m tf_lwdgh.study": "report: runs/studies/table5-tiny/report.html",
    "tensorboard": "train/loss",
    "saved_model_cli": "inputs['support_images']",
    "python -m tf_lwdgh.serve": '{"status":"ready"}',
    "curl -X PUT": '"images":{"cat":2,"dog":1}',
    "curl --data-binary": '"class": "',
    "python tools/convert_folder.py": "train 15 classes",
    "python -m tf_lwdgh.doctor": "0 faults, 0 warnings",
    "python -m tf_lwdgh.predict": "answers.csv: 6 answers, 2 classes",
}


def blocks() -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def steps() -> list[tuple[str, str]]:
    """('bash', one command) or ('python', a whole snippet), in the order shown."""
    found = []
    for language, text in blocks():
        if language == "bash":
            joined = text.replace("\\\n", " ")
            found += [("bash", re.sub(r"\s+", " ", line)) for line in joined.splitlines() if line]
        elif language == "python":
            found.append(("python", text))
    return found


def substitute(command: str) -> str:
    for start, replacement in SUBSTITUTES:
        if command.startswith(start):
            return replacement.format(command)
    return command.replace("127.0.0.1:8501", f"127.0.0.1:{PORT}")


def make_photos(folder: pathlib.Path) -> None:
    """25 classes of 6 small pictures."""
    random = np.random.default_rng(0)
    for name in range(25):
        (folder / f"class{name}").mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"class{name}" / f"{i}.png")
    for kind in ("known/class1", "known/class2", "unknown"):
        shutil.copytree(folder / "class1", folder.parent / kind)


def make_environment(folder: pathlib.Path) -> None:
    """A .venv that is up to date and stands for the interpreter that runs the tests."""
    programs = {
        "python": "",
        "tensorboard": "-m tensorboard.main",
        "saved_model_cli": "-m tensorflow.python.tools.saved_model_cli",
    }
    (folder / "bin").mkdir(parents=True)
    for name, arguments in programs.items():
        path = folder / "bin" / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        path.chmod(0o755)
    (folder / "bin" / "activate").write_text('export PATH="$PWD/.venv/bin:$PATH"\n')
    shutil.copy(ROOT / "requirements.txt", folder / "requirements.installed")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Iterator[pathlib.Path]:
    """A copy of the repository, without what was made in it."""
    folder = tmp_path_factory.mktemp("readme") / "tf_lwdgh"
    made = shutil.ignore_patterns(".git", ".venv*", "/data", "__pycache__", ".*_cache")
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name in ("tf_lwdgh", "gin", "tools", "tests", "docs"):
            shutil.copytree(path, folder / path.name, ignore=made)
        elif path.is_file():
            shutil.copy(path, folder)
    make_environment(folder / ".venv")
    make_photos(folder / "photos")
    for i, name in enumerate(("cat1", "cat2", "dog1", "who")):
        Image.open(folder / "photos" / f"class{i}" / "0.png").save(folder / f"{name}.jpg")
    yield folder
    if (folder / "served.pid").exists():
        os.kill(int((folder / "served.pid").read_text()), signal.SIGTERM)


def run(command: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    blocked = "http://127.0.0.1:9"  # nothing listens there
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PY", "RUN", "OUT")}
    environment = {
        **clean,
        "PATH": f"{folder / '.venv' / 'bin'}{os.pathsep}{clean['PATH']}",
        "http_proxy": blocked,
        "https_proxy": blocked,
        "no_proxy": "127.0.0.1",  # but for the server that the README starts
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "MAKEFLAGS": "",
    }
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip


def test_the_steps_were_found():
    kinds = [kind for kind, _ in steps()]
    assert kinds.count("bash") > 10
    assert kinds.count("python") == 2


@pytest.mark.parametrize(
    ("kind", "text"), steps(), ids=[f"{i:02}-{t.splitlines()[0][:50]}" for i, (_, t) in enumerate(steps())]
)
def test_a_step_of_the_readme_works(kind, text, copy):
    if kind == "python":
        size = TINY["IMAGE_SIZE"]
        text = text.replace("size = 84", f"size = {size}").replace("28, 28", f"{size}, {size}")
        (copy / "snippet.py").write_text(text)
        alone = "" if "import tf_lwdgh" in text else "-I"  # this package is not on the path
        done = run(f"python {alone} snippet.py", copy)
        assert done.returncode == 0, done.stderr
        for line, said in re.findall(r"print\((.*)\)  # (.*)", text):
            assert said in done.stdout, f"print({line})"
        return
    if text.startswith(("curl", "python -m tf_lwdgh.serve")) and shutil.which("curl") is None:
        pytest.skip("no curl is installed")
    done = run(substitute(text), copy)
    if text.startswith(MISSING):
        assert done.returncode == 2
        assert "error: " in done.stderr and "usage:" not in done.stderr
        assert "downloads" in done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    for start, said in PRINTS.items():
        if text.startswith(start):
            assert said in done.stdout, done.stdout + done.stderr


def test_the_demo_again_reuses_everything(copy):
    done = run(substitute("bash tools/demo.sh"), copy)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("data/glyphs is there", "evaluated before", "exported before", " ± "):
        assert said in done.stdout, done.stdout
    assert "nothing is left to train" in done.stdout + done.stderr


@pytest.mark.parametrize("python", ["no_such_python", "/bin/false"])
def test_another_python_than_the_supported_ones_is_refused(python, copy, tmp_path):
    (tmp_path / "tools").mkdir()
    shutil.copy(copy / "tools" / "setup.sh", tmp_path / "tools")
    shutil.copy(copy / "requirements.txt", tmp_path)
    done = run(f"PYTHON={python} bash tools/setup.sh", tmp_path)
    assert done.returncode == 2
    assert "Python 3.10 to 3.13 is needed" in done.stderr
    assert python in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_files_that_the_readme_names_exist():
    for name in re.findall(r"`((?:gin|tools|docs|tests|tf_lwdgh)/[\w./*]+)`", README):
        assert list(ROOT.glob(name)), f"README.md names {name}"


def test_the_settings_that_the_readme_names_can_be_bound():
    from tf_lwdgh import config
    from tf_lwdgh.runs import experiment, trainer  # noqa: F401  registers the names

    names = re.findall(r"`(\w+(?:\.\w+)?)`", README.split("| to set | bind |")[1].split("\n\n")[0])
    dotted = [n for n in names if "." in n]
    assert len(names) > 10
    config.parse([str(ROOT / "gin/glyphs.gin")], [f"{n} = 1" for n in dotted])
    capitals = [n for n in names if n.isupper()]
    config.parse([str(ROOT / "gin/glyphs.gin")], [f"{n} = 1" for n in capitals])
