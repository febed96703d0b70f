# SPDX-License-Identifier: Apache-2.0
"""A study's report: report.html, which needs no other file, report.md and results.csv."""

from __future__ import annotations

import base64
import csv
import html
import io
import os
import shlex
from collections.abc import Sequence

from tf_lwdgh import files
from tf_lwdgh.outer.evaluation import mean_and_interval
from tf_lwdgh.studies import pages, results, tables
from tf_lwdgh.studies.definition import Setting, Study
from tf_lwdgh.studies.figures.base import Figure
from tf_lwdgh.studies.results import Result
from tf_lwdgh.studies.statistics import Estimate
from tf_lwdgh.studies.tables import Row

HEADS = (
    "method", "accuracy, %", "s.d. over seeds", "difference from {baseline}, points", "published, %",
    "mean GCI", "conflict rate", "s a step", "hours a run", "remarks",
)  # fmt: skip
_COLUMNS = (
    "setting", "method", "seed", "state", "accuracy", "interval95", "n_tasks", "difference",
    "difference_interval95", "published", "source", "steps", "gci", "conflict_rate",
    "seconds_per_step", "hours", "dataset", "learner", "inner_steps", "batch_norm", "checkpoint",
    "task_list_sha256", "hardware", "commit", "message",
)  # fmt: skip


def write(study: Study, found: Sequence[Result], figures: Sequence[Figure], *, out: str, command: str) -> None:
    """Writes the three files, and the figures as PNG and CSV beside them.

    Args:
      study: the study.
      found: its results so far.
      figures: drawn ones.
      out: the study's folder.
      command: what made it.
    """
    for figure in figures:
        write_figure(figure, out)
    by_setting = {s: tables.rows(study, s, found) for s in study.settings}
    files.write(os.path.join(out, "report.md"), markdown(study, by_setting, found, figures, command))
    page = as_html(study, by_setting, found, figures, command)
    files.write(os.path.join(out, "report.html"), page)
    files.write(os.path.join(out, "results.csv"), _csv(_records(study, found)))


def cells(row: Row, baseline: str) -> list[str]:
    """The texts of a row, below HEADS."""
    measured = row.measured
    return [
        row.method.name,
        "" if row.accuracy is None else _percent(row.accuracy),
        "" if row.deviation is None else f"{100 * row.deviation:.2f} (n = {len(row.done)})",
        "baseline" if row.method.name == baseline else _points(row.difference),
        row.published,
        _number(measured.get("gci"), "{:.2f}"),
        _number(measured.get("conflict_rate"), "{:.1f} %", 100),
        _number(measured.get("seconds_per_step"), "{:.3f}"),
        _number(measured.get("hours"), "{:.2f}"),
        " ".join(row.remarks),
    ]  # fmt: skip


def _percent(e: Estimate) -> str:
    return f"{100 * e.mean:.2f} ± {100 * e.interval95:.2f}"


def _points(e: Estimate | None) -> str:
    if e is None:
        return ""
    mark = " *" if e.leaves_zero_out else ""
    return f"{100 * e.mean:+.2f} ± {100 * e.interval95:.2f} (n = {e.n_seeds}){mark}"


def _number(value: float | None, form: str, times: float = 1.0) -> str:
    return "" if value is None else form.format(times * value)


def legend(study: Study, found: Sequence[Result]) -> list[str]:
    """How to read the tables, as paragraphs."""
    done = [r for r in found if r.state == results.DONE]
    tasks = f"{len(done[0].accuracies)} test tasks" if done else "test tasks"
    compared = sum(m.name != study.baseline and not m.absent for m in study.methods)
    compared *= len(study.settings)
    sources = dict.fromkeys(m.source for m in study.methods if m.source)
    published = f"Published figures ({'; '.join(sources)})" if sources else "Published figures"
    return [
        f"Accuracy: the mean over {tasks}, the same for all methods and seeds, ± 1.96 s/√n over tasks: "
        "for these runs, not for others. s.d.: of the seeds' means, n of them; none is given of one seed.",
        f"Difference: paired by task and seed, n seeds, with its 95 % interval. From two seeds on it holds "
        "for new seeds and new tasks (two-way random effects, Satterthwaite's degrees of freedom); from "
        "one seed it is over tasks alone and says nothing of other seeds. * marks intervals that leave 0 "
        f"out; of {compared} such intervals about {compared / 20:.1f} would by chance alone.",
        f"{published} are other people's, with their data, code and settings, and not of these runs.",
    ]


def about(found: Sequence[Result], command: str) -> list[tuple[str, str]]:
    """What it was made with."""
    done = [r for r in found if r.state == results.DONE]
    lines = [("command", command)]
    for key in ("hardware", "commit"):
        values = sorted({str(r.made.get(key, "")) for r in found} - {""})
        if values:
            lines.append((key, ", ".join(values)))
    versions = sorted({" · ".join(f"{k} {v}" for k, v in r.made.get("versions", {}).items()) for r in found})
    lines += [("versions", v) for v in versions if v]
    how = sorted({str({k: r.about[k] for k in ("dataset", "split", "n_way", "k_shot", "n_query",
                  "batch_norm")}).strip("{}").replace("'", "") for r in done})  # fmt: skip
    lines += [("evaluation", h) for h in how]
    hours = sum(r.measured.get("hours", 0.0) for r in done)
    return [*lines, ("training, all runs", f"{hours:.1f} hours")]


def markdown(
    study: Study, by_setting: dict[Setting, list[Row]], found: Sequence[Result],
    figures: Sequence[Figure], command: str,
) -> str:  # fmt: skip
    """report.md."""
    parts = [f"# {study.heading}", *filter(None, [study.note])]
    heads = _heads(study)
    for setting, found_rows in by_setting.items():
        if setting.name:
            parts.append(f"## {setting.name}")
        lines = [heads, ["---"] * len(heads), *(cells(r, study.baseline) for r in found_rows)]
        parts.append("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))
    parts += legend(study, found)
    parts += [f"![{_cell(f.caption)}](figures/{f.name}.png)\n\n{f.caption}" for f in figures]
    parts.append("## Made with")
    parts.append("\n".join(f"- {name}: {value}" for name, value in about(found, command)))
    return "\n\n".join(parts) + "\n"


def _heads(study: Study) -> list[str]:
    return [head.format(baseline=study.baseline) for head in HEADS]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def as_html(
    study: Study, by_setting: dict[Setting, list[Row]], found: Sequence[Result],
    figures: Sequence[Figure], command: str,
) -> str:  # fmt: skip
    """report.html."""
    body = [f"<p>{html.escape(study.note)}</p>"] if study.note else []
    for setting, found_rows in by_setting.items():
        if setting.name:
            body.append(f"<h2>{html.escape(setting.name)}</h2>")
        body.append(_html_table(study, found_rows))
    body += [f"<p>{html.escape(p)}</p>" for p in legend(study, found)]
    for figure in figures:
        data = base64.b64encode(figure.png).decode()
        caption = html.escape(figure.caption)
        body.append(
            f"<figure><img alt='{html.escape(figure.name)}' src='data:image/png;base64,{data}'>"
            f"<figcaption>{caption}</figcaption></figure>"
        )
    body.append("<h2>Made with</h2><table>")
    for name, value in about(found, command):
        body.append(f"<tr><td>{html.escape(name)}</td><td class='words'>{html.escape(value)}</td></tr>")
    body.append("</table>")
    commands = dict.fromkeys(line for r in found for line in r.made.get("commands", ()))
    listed = html.escape("\n".join(commands))
    body.append(f"<details><summary>The command of every run</summary><pre>{listed}</pre></details>")
    return pages.document(study.heading, "\n".join(body))


def _html_table(study: Study, found_rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in _heads(study))
    lines = [f"<table><tr>{head}</tr>"]
    for row in found_rows:
        texts = cells(row, study.baseline)
        kind = " class='baseline'" if row.method.name == study.baseline else ""
        inner = "".join(f"<td>{html.escape(t)}</td>" for t in texts[:-1])
        lines.append(f"<tr{kind}>{inner}<td class='words'>{html.escape(texts[-1])}</td></tr>")
    return "\n".join([*lines, "</table>"])


def _records(study: Study, found: Sequence[Result]) -> list[dict[str, object]]:
    """A record a run, in the study's order."""
    methods = {m.name: m for m in study.methods}
    by_key = {(r.setting, r.method, r.seed): r for r in found}
    records = []
    for result in found:
        method = methods[result.method]
        record = dict.fromkeys(_COLUMNS, "") | {
            "setting": result.setting, "method": result.method, "seed": result.seed,
            "state": result.state, "published": method.published_in(result.setting),
            "source": method.source, "steps": result.steps, "message": result.message.strip(),
            "hardware": result.made.get("hardware", ""), "commit": result.made.get("commit", ""),
            **result.measured, **{k: v for k, v in result.about.items() if k in _COLUMNS},
        }  # fmt: skip
        if result.state == results.DONE:
            mean, interval = mean_and_interval(result.accuracies)
            record |= {"accuracy": mean, "interval95": interval, "n_tasks": len(result.accuracies)}
            base = by_key.get((result.setting, study.baseline, result.seed))
            if base is not None and base is not result and _comparable(result, base):
                mean, interval = mean_and_interval(result.accuracies - base.accuracies)
                record |= {"difference": mean, "difference_interval95": interval}
        records.append(record)
    return records


def _comparable(a: Result, b: Result) -> bool:
    same = a.about.get("task_list_sha256") == b.about.get("task_list_sha256")
    return same and a.state == b.state == results.DONE


def _csv(records: Sequence[dict[str, object]]) -> str:
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return text.getvalue()


def write_figure(figure: Figure, out: str) -> str:
    """Writes a figure as PNG and its numbers as CSV into figures/; the PNG's path."""
    path = os.path.join(out, "figures", f"{figure.name}.png")
    files.write(os.path.join(out, "figures", f"{figure.name}.csv"), _csv(figure.table))
    files.write(path, figure.png)
    return path


def command_line(argv: Sequence[str]) -> str:
    """The command as it can be typed again."""
    return shlex.join(["python", "-m", "tf_lwdgh.study", *argv])
