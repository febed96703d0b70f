"""The documents' Python runs, and the aggregator it defines is one."""

import pathlib
import re

import numpy as np

from tests.aggregators.test_aggregators import aggregate, random_gradients

DOCS = pathlib.Path(__file__).parent.parent / "docs"


def snippets(name):
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_documented_aggregator_and_data_set_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    aggregator, data_set = snippets("extending.md")
    names = {"__name__": "documented"}
    exec(compile(aggregator, "extending.md", "exec"), names)
    gradients = random_gradients(5)
    out = aggregate(names["Median"](), gradients)
    for ours, g in zip(out.gradients, gradients):
        np.testing.assert_allclose(ours, np.median(g, axis=0))
    exec(compile(data_set, "extending.md", "exec"), {})
    assert (tmp_path / "data/noise/dataset_spec.json").exists()


def test_documents_name_functions_that_exist():
    """Every `module.function` or `file.py` in the documents is there."""
    root = DOCS.parent
    for path in DOCS.glob("*.md"):
        for name in re.findall(r"`((?:tf_lwdgh|tests|tools|docs|gin|bench)/[\w./]+)`", path.read_text()):
            assert (root / name).exists(), f"{path.name} names {name}, which is not there"
