# SPDX-License-Identifier: Apache-2.0
"""The documents as a site: built without a warning, with a reference of every room, asking nobody else for anything."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    pages = {p.relative_to(tmp_path / "site").as_posix(): p.read_text(encoding="utf-8") for p in
             (tmp_path / "site").rglob("*.html")}  # fmt: skip
    assert {"index.html", "methods.html", "serving.html"} <= set(pages)
    assert "LWDGH" in pages["reference/tf_lwdgh.aggregators.html"]
    assert "PrototypicalNetwork" in pages["reference/tf_lwdgh.learners.html"]
    asked = r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+"'
    for name, text in pages.items():
        found = [tag for tag in re.findall(asked, text) if 'rel="canonical"' not in tag]
        assert not found, (name, found)
