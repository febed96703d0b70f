# SPDX-License-Identifier: Apache-2.0
"""Lists what a --gin_file may name: experiments, and what goes on top of them, with a line each.

Examples:

  Everything:
    python -m tf_lwdgh.list

  One kind, or all whose name or line holds a word:
    python -m tf_lwdgh.list learners
    python -m tf_lwdgh.list omniglot

The names are what --gin_file takes, wherever the package is installed; a file of your own of that name
comes first. docs/methods.md, or tools/document_methods.py in a clone, says more of each method.
"""

from __future__ import annotations

import os
import pathlib
import sys
import textwrap
from collections.abc import Container, Sequence
from typing import NamedTuple

from absl import app

from tf_lwdgh import command_line, config

PROGRAM = "tf_lwdgh.list"
EXPERIMENTS = "experiments"
_ORDER = (
    EXPERIMENTS, "recipes", "learners", "aggregators", "backbones", "datasets", "shots",
    "precision", "protocols", "sizes",
)  # fmt: skip
_SHARED = "base"  # what every experiment includes
_COMMAND = "# Command:"
WIDTH = 140  # characters of a line, without the name


class Entry(NamedTuple):
    """A gin file."""

    kind: str
    name: str  # as --gin_file takes it
    line: str  # what it is


def define_flags() -> None:
    """The flags of this program: none of its own."""


def entries() -> list[Entry]:
    """The project's gin files, kind by kind."""
    found = [_entry(name) for name in config.available() if name != _SHARED]
    kinds = [*_ORDER, *sorted({e.kind for e in found} - set(_ORDER))]
    return sorted(found, key=lambda e: (kinds.index(e.kind), e.name))


def _entry(name: str) -> Entry:
    text = (pathlib.Path(config.GIN_FOLDER) / f"{name}.gin").read_text(encoding="utf-8")
    line = textwrap.shorten(_first_sentence(text), WIDTH, placeholder=" …")
    return Entry(name.partition("/")[0] if "/" in name else EXPERIMENTS, name, line)


def _first_sentence(text: str) -> str:
    """The first sentence of the comment that a gin file opens with."""
    words: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#") or line.startswith(_COMMAND):
            break
        words.append(line.removeprefix("#").strip())
        before, end, _ = f"{' '.join(words)} ".partition(". ")
        if end:
            return f"{before}."
    return " ".join(words)


def listed(words: Sequence[str]) -> str:
    """The entries of the kinds or with the words that are asked for; all where none is.

    Raises:
      ValueError: there is none.
    """
    there = entries()
    kinds = dict.fromkeys(e.kind for e in there)
    chosen = [e for e in there if all(_fits(e, word.lower(), kinds) for word in words)]
    if not chosen:
        raise ValueError(f"nothing is called {' '.join(words)!r}. The kinds are {', '.join(kinds)}.")
    width = max(len(e.name) for e in chosen) + 2
    lines: list[str] = []
    for kind in dict.fromkeys(e.kind for e in chosen):
        of_kind = [e for e in chosen if e.kind == kind]
        lines += [f"{kind}:", *(f"  {e.name:{width}}{e.line}" for e in of_kind), ""]
    return "\n".join(lines[:-1])


def _fits(entry: Entry, word: str, kinds: Container[str]) -> bool:
    if word in kinds:
        return entry.kind == word
    return word in f"{entry.name} {entry.line}".lower()


def main(argv: Sequence[str]) -> None:
    """The command line."""
    with command_line.clean_errors(PROGRAM):
        try:
            print(listed(argv[1:]), flush=True)
        except BrokenPipeError:  # such as by `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    define_flags()
    app.run(main)
