# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's Custom Scalars page: the run at a glance, and all units' lines in one chart a kind."""

from __future__ import annotations

from tensorboard.plugins.custom_scalar import layout_pb2

from tf_lwdgh.runs.tags import FIRST, HIGH, LOW, Tags

_BAND = "accuracy ± 95 % interval"
# Titles, and the metrics whose lines a chart holds.
_PROGRESS = {
    "accuracy": ("train/accuracy", "val/accuracy"),
    "loss": ("train/loss", "val/loss"),
    "conflict index (GCI), sum over all units": ("gci/total",),
    "share of conflicting pairs, mean over all units": (
        "conflict_rate/total", "strong_conflict_rate/total",
    ),
    "largest attention weight of a task, mean over all units": ("attention_max/total",),
    "cosine of update and mean, mean over all units": ("update_cosine/total",),
    "update's norm over all units": ("gradient_norm/total",),
    "outer learning rate": ("learning_rate/outer",),
    "probability of exploring": ("explore/probability",),
    "tasks a second": ("speed/tasks_per_second",),
}  # fmt: skip
# Titles, and the groups of which a chart holds the lines of all units.
_UNITS = {
    "conflict index (GCI)": "gci",
    "share of conflicting pairs (cosine < 0)": "conflict_rate",
    "share of pairs in strong conflict": "strong_conflict_rate",
    "cosine of update and mean": "update_cosine",
    "largest attention weight of a task": "attention_max",
    "update's norm": "gradient_norm",
}


def layout(tags: Tags) -> layout_pb2.Layout:
    """The page's categories and charts, of what is shown of a run."""
    shown = {title: [tag for n in names if (tag := tags.of(n))] for title, names in _PROGRESS.items()}
    progress = [_lines(title, [f"^{t}$" for t in found]) for title, found in shown.items() if found]
    categories = [
        layout_pb2.Category(title="validation", chart=[_band()]),
        layout_pb2.Category(title="progress", chart=progress),
    ]
    units = {title: f"{group}/" for title, group in _UNITS.items() if tags.of(f"{group}/any")}
    if units:
        charts = [_lines(title, [f"^{group}(?!total)"]) for title, group in units.items()]
        categories.append(layout_pb2.Category(title="units", chart=charts))
    return layout_pb2.Layout(category=categories)


def _lines(title: str, patterns: list[str]) -> layout_pb2.Chart:
    """A chart of the lines whose tags match one of the regular expressions."""
    return layout_pb2.Chart(
        title=title, multiline=layout_pb2.MultilineChartContent(tag=patterns)
    )


def _band() -> layout_pb2.Chart:
    """Validation accuracy with its interval as a band."""
    series = layout_pb2.MarginChartContent.Series(
        value=f"{FIRST}/val/accuracy", lower=LOW, upper=HIGH
    )
    return layout_pb2.Chart(title=_BAND, margin=layout_pb2.MarginChartContent(series=[series]))
