# SPDX-License-Identifier: Apache-2.0
"""`tf-lwdgh <command> …`, or `python -m tf_lwdgh <command> …`: all commands by one name.

`tf-lwdgh train …` is `python -m tf_lwdgh.train …`, the same program.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import runpy
import sys

from tf_lwdgh import __version__

PROGRAM = "tf-lwdgh"
USER_ERROR = 2
# What each command does; those count whose module is there.
COMMANDS = {
    "train": "trains an experiment, or goes on with it",
    "evaluate": "judges a run on test tasks, and compares two",
    "export": "writes a run as a SavedModel that learns new classes",
    "predict": "sorts photos of your own by examples of each class",
    "serve": "answers over HTTP what an export has to say",
    "study": "trains and judges methods × settings × seeds, and writes the report",
    "doctor": "examines the installation, settings, data sets, runs and exports",
    "convert": "makes data sets of what there is",
    "list": "lists experiments, fragments, learners, aggregators and studies",
}
_MODULES = {"convert": "converters"}  # where it is not the command's name


def module(command: str) -> str:
    """The module that is a command."""
    return f"tf_lwdgh.{_MODULES.get(command, command)}"


def commands() -> list[str]:
    """The commands that this installation has."""
    return [name for name in COMMANDS if importlib.util.find_spec(module(name)) is not None]


def usage() -> str:
    """What is shown for --help."""
    lines = "\n".join(f"  {name:10}{COMMANDS[name]}" for name in commands())
    return (
        f"usage: {PROGRAM} <command> [flags]\n\n{lines}\n\n"
        f"{PROGRAM} <command> --help shows a command's examples and flags; {PROGRAM} --version the version.\n"
    )


def missing(command: str, package: str) -> str:
    """What to say where a command needs a package that is not installed."""
    extra = _extra_of(package)
    ask = f"'tf_lwdgh[{extra}]'" if extra else package
    return f"{PROGRAM} {command} needs the package {package}, which is not installed: pip install {ask}"


def _extra_of(package: str) -> str | None:
    """The extra that brings a package; None where none is known to."""
    try:
        wanted = importlib.metadata.requires("tf_lwdgh") or []
    except importlib.metadata.PackageNotFoundError:  # a clone
        return None
    for requirement in wanted:
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if name and extra and name[0].lower().replace("_", "-") == package.lower().replace("_", "-"):
            return extra[1]
    return None


def main() -> None:
    """Hands the command line to the command."""
    asked, *arguments = sys.argv[1:] or ["--help"]
    if asked in ("--help", "-h", "help"):
        print(usage(), end="")
        return
    if asked == "--version":
        print(f"tf_lwdgh {__version__}")
        return
    if asked not in commands():
        print(f"{PROGRAM}: no such command: {asked}\n\n{usage()}", end="", file=sys.stderr)
        sys.exit(USER_ERROR)
    sys.argv = [f"{PROGRAM} {asked}", *arguments]
    if not getattr(sys.flags, "safe_path", False) and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does: a gin file may import a module that lies there
    try:
        runpy.run_module(module(asked), run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "tf_lwdgh"):
            raise
        print(missing(asked, package), file=sys.stderr)
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
