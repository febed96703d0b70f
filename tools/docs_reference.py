# SPDX-License-Identifier: Apache-2.0
"""A hook of MkDocs: a page a room of the package, made of its docstrings, below Reference."""

from __future__ import annotations

import ast
import pathlib

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "tf_lwdgh"


def rooms() -> dict[str, list[str]]:
    """The modules of each room that have a docstring and something public, by the room's dotted name."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name != "__init__.py" and _is_public(path):
            found.setdefault(module.rpartition(".")[0], []).append(module)
    return found


def _is_public(path: pathlib.Path) -> bool:
    kinds = (ast.ClassDef, ast.FunctionDef)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in body)


def page(room: str, modules: list[str]) -> str:
    """The Markdown of a room."""
    parts = [f"# {room}", *(f"::: {module}" for module in modules)]
    return "\n\n".join(parts) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages to the navigation."""
    config.nav.append({"Reference": [{room: f"reference/{room}.md"} for room in rooms()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for room, modules in rooms().items():
        text = page(room, modules)
        files.append(File.generated(config, f"reference/{room}.md", content=text))
    return files
