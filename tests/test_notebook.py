# SPDX-License-Identifier: Apache-2.0
"""The notebook runs from its first cell to its last, on a network and images that take seconds."""

import pathlib

import nbformat
from nbclient import NotebookClient

NOTEBOOK = pathlib.Path(__file__).resolve().parents[1] / "notebooks" / "first_steps.ipynb"
SMALL = (
    "'IMAGE_SIZE = 28', 'EPOCHS = 1', 'STEPS_PER_EPOCH = 10', 'INNER_STEPS = 1', 'TEST_INNER_STEPS = 1', "
    "'VAL_TASKS = 4', 'N_QUERY = 3', 'convnet4.filters = 4', 'convnet4.fused = False'"
)


def test_every_cell_runs(tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        cell.source = cell.source.replace('"EPOCHS = 2"', SMALL).replace("n_tasks=200", "n_tasks=4")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert "accuracy over 4 test tasks of glyphs" in said and said.rstrip().endswith("True")
    pictures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) == 3


def test_it_is_kept_with_its_outputs():
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [o for cell in cells for o in cell.outputs if o.output_type == "error"]
