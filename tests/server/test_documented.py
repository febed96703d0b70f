# SPDX-License-Identifier: Apache-2.0
"""What docs/serving.md says of the server: its commands work as written, its table has the defaults."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.server import served
from tf_lwdgh.server.limits import Limits

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"
SERVER = DOCUMENT.read_text(encoding="utf-8").partition("\n## A server\n")[2].partition("\n## ")[0]


def commands(start: str) -> str:
    """The block of commands that begins so."""
    blocks = re.findall(r"```bash\n(.*?)```", SERVER, re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(start)]
    return found


@pytest.fixture
def say(models, tmp_path):
    """Runs a block against a server, in a folder of pictures, and gives its output."""
    random = np.random.default_rng(0)
    for name in ("cat1.jpg", "cat2.jpg", "dog1.jpg", "who.jpg", "other.png"):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / name)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    env = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}

    def run(block: str, port: int) -> str:
        script = "set -e\n" + block.replace(":8501", f":{port}").replace("curl ", "curl -sS -w '\\n' ")
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    if shutil.which("curl") is None:
        pytest.skip("no curl is installed")
    with served.listening(models) as (port, _):
        yield lambda block: [json.loads(line) for line in run(block, port).splitlines() if line]


def test_the_commands_for_classifiers_work_as_written(say):
    learned, one, two, listed, removed = say(commands("curl -X PUT"))
    assert learned["images"] == {"cat": 2, "dog": 1} and learned["evicted"] == []
    assert one["predictions"][0]["class"] in ("cat", "dog")
    assert [p["file"] for p in two["predictions"]] == ["who.jpg", "other.png"]
    assert one["predictions"][0]["probabilities"] == pytest.approx(two["predictions"][0]["probabilities"], rel=1e-5)
    assert [c["name"] for c in listed["classifiers"]] == ["pets"]
    assert removed == {"removed": "pets"}


def test_the_commands_of_tensorflow_servings_contract_work_as_written(say):
    status, metadata, told, answer = say(commands("curl http://127.0.0.1:8501/v1/models/demo\n"))
    assert status["model_version_status"][0]["state"] == "AVAILABLE"
    assert "adapt_bytes" in metadata["metadata"]["signature_def"]["signature_def"]
    assert json.loads(told["outputs"])["learner"]
    assert np.shape(answer["outputs"]["probabilities"]) == (1, 2)


def test_the_table_of_limits_has_every_flag_and_its_default():
    rows = re.findall(r"^\| `--(\w+)` \| ([\d.]+) \|", SERVER, re.MULTILINE)
    assert {name: float(value) for name, value in rows} == dataclasses.asdict(Limits())
