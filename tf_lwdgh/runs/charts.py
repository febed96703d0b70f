"""TensorBoard's Custom Scalars page: the run at a glance, and all units' lines in one chart a kind.

The Scalars page has a chart for each unit and sorts them by name, so that the loss comes last.
"""

from __future__ import annotations

from tensorboard.plugins.custom_scalar import layout_pb2

# Titles, and regular expressions of the tags whose lines a chart holds; '…/total' stands by itself.
_CHARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "progress": {
        "accuracy": ("train/accuracy", "val/accuracy"),
        "loss": ("train/loss", "val/loss"),
        "conflict index (GCI), sum over all units": ("gci/total",),
        "share of conflicting pairs, mean over all units": (
            "conflict_rate/total", "strong_conflict_rate/total",
        ),
        "update's norm over all units": ("gradient_norm/total",),
        "outer learning rate": ("learning_rate/outer",),
        "probability of exploring": ("explore/probability",),
        "tasks a second": ("speed/tasks_per_second",),
    },
    "units": {
        "conflict index (GCI)": ("gci/(?!total)",),
        "share of conflicting pairs (cosine < 0)": ("conflict_rate/(?!total)",),
        "share of pairs in strong conflict": ("strong_conflict_rate/(?!total)",),
        "cosine of update and mean": ("update_cosine/",),
        "largest weight of a task": ("weights_max/",),
        "update's norm": ("gradient_norm/(?!total)",),
    },
}  # fmt: skip


def layout() -> layout_pb2.Layout:
    """The page's categories and charts."""
    content = layout_pb2.MultilineChartContent
    return layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=category,
                chart=[
                    layout_pb2.Chart(title=title, multiline=content(tag=[f"^{t}" for t in tags]))
                    for title, tags in charts.items()
                ],
            )
            for category, charts in _CHARTS.items()
        ]
    )
