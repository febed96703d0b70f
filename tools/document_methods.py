# SPDX-License-Identifier: Apache-2.0
"""Writes docs/methods.md from what the aggregators and learners say of themselves.

python tools/document_methods.py          writes it
python tools/document_methods.py --check  exits with 1 where it is not up to date
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PAGE = ROOT / "docs/methods.md"
INTRO = """# The methods

This page is written by `python tools/document_methods.py` from the classes themselves, so that it cannot lag.
Every learner goes with every aggregator: each is a gin fragment that goes on top of an experiment.

    python -m tf_lwdgh.train --gin_file=gin/mini_convnet4.gin --gin_file=gin/learners/boil.gin \\
        --gin_file=gin/aggregators/pcgrad.gin --gin_file=gin/shots/5shot.gin

Accuracies on this page are others', with their source; what was measured here stands in `docs/results.md`. They
are rarely comparable: networks, BatchNorm, inner steps, queries and tasks differ. Letters: g_k the outer gradient
of task k in a unit, K tasks, ḡ their mean, G their inner products; L_S and L_Q a task's support and query loss.
Own parameters are meta-parameters of a learner beside the network's, trained by the same outer optimizer.
"""
AGGREGATORS = """
## Aggregators

What makes one update of the tasks' outer gradients: `Experiment.aggregator`. All work on a unit at a time
(`unit = 'variable'`, `'layer'` or `'model'`), return updates on the scale of the mean, and can be wrapped by
explore-exploit (`gin/aggregators/explore_exploit.gin`), which takes the plain mean with a probability that falls by
a cosine. Weights and conflict are logged whatever the aggregator.
"""
LEARNERS = """
## Learners

What learns a task from its support set: `Experiment.learner`.
"""


def _paragraph(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _attributes(cls: type) -> dict[str, str]:
    """The documented attributes of a class and its bases, by name."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        doc = inspect.cleandoc(base.__doc__ or "") if "__doc__" in vars(base) else ""
        section = doc.partition("Attributes:\n")[2]
        entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section, re.MULTILINE)
        found |= {name: _paragraph(text) for name, text in entries}
    return found


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "its own defaults" if field.default_factory is not dataclasses.MISSING else ""


def _fragments(name: str, folder: str) -> list[str]:
    paths = sorted((ROOT / "gin" / folder).glob("*.gin"))
    return [f"`gin/{folder}/{p.name}`" for p in paths if f"@{name}()" in p.read_text(encoding="utf-8")]


def section(name: str, cls: type, folder: str) -> str:
    """One method."""
    text = inspect.cleandoc(cls.__doc__).partition("\nAttributes:")[0].strip()
    paragraphs = [_paragraph(p) for p in re.split(r"\n\s*\n", text)]
    lines = [f"### {name}", "", " ".join(paragraphs), ""]
    if cls.equation:
        lines += [f"    {cls.equation}", ""]
    fragments = ", ".join(_fragments(name, folder))
    lines += [f"{cls.reference}." + (f" Fragment: {fragments}." if fragments else ""), ""]
    if cls.traps:
        lines += [f"To know: {cls.traps}", ""]
    told = _attributes(cls)
    lines += ["| setting | default | |", "|---|---|---|"]
    for field in dataclasses.fields(cls):
        about = told.get(field.name, "").replace("|", "\\|")
        lines.append(f"| `{name}.{field.name}` | {_default(field)} | {about} |")
    if cls.published:
        lines += ["", "| published for | accuracy, % | where |", "|---|---|---|"]
        lines += [f"| {p.setting} | {p.accuracy} | {p.source} |" for p in cls.published]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    from tf_lwdgh import aggregators, learners

    parts = [INTRO]
    for intro, package, folder in (
        (AGGREGATORS, aggregators, "aggregators"),
        (LEARNERS, learners, "learners"),
    ):
        parts.append(intro)
        parts += [section(name, cls, folder) for name, cls in package.ALL.items()]
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    text = page()
    if args.check:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
