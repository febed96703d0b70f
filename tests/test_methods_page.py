# SPDX-License-Identifier: Apache-2.0
"""docs/methods.md says what the classes say, of every one of them."""

import pathlib
import subprocess
import sys

from tf_lwdgh import aggregators, learners

ROOT = pathlib.Path(__file__).parents[1]


def test_the_page_is_up_to_date():
    done = subprocess.run([sys.executable, "tools/document_methods.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run python tools/document_methods.py"


def test_every_method_has_a_section_a_rule_and_a_fragment():
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    for folder, package in (("aggregators", aggregators), ("learners", learners)):
        fragments = "".join(p.read_text() for p in (ROOT / "gin" / folder).glob("*.gin"))
        for name, method in package.ALL.items():
            assert f"### {name}\n" in text
            assert method.equation, f"{name} states no equation"
            assert f"@{name}()" in fragments, f"{name} has no fragment in gin/{folder}"
