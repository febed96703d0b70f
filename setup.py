# SPDX-License-Identifier: Apache-2.0
"""Packaging; pinned versions stand in requirements.txt, ranges of them in tf_lwdgh/versions.py."""

import pathlib
import re
import runpy

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "tf_lwdgh/__init__.py").read_text())[1]
VERSIONS = runpy.run_path(str(ROOT / "tf_lwdgh/versions.py"))


def pins() -> dict[str, list[str]]:
    """The pinned requirements by the section of requirements.txt they stand in."""
    sections: dict[str, list[str]] = {"run": []}
    section = "run"
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        heading = re.match(r"# \[(\w+)\]", line)
        if heading:
            section = heading[1]
            sections.setdefault(section, [])
        elif line and not line.startswith("#"):
            sections[section].append(line)
    return sections


def ranged(versions: dict[str, str]) -> list[str]:
    """Such as 'keras>=3.6,<4'."""
    return [f"{name}{versions[name]}" for name in sorted(versions)]


EXTRAS = {name: ranged(versions) for name, versions in VERSIONS["EXTRAS"].items()}
PINS = pins()

setup(
    name="tf_lwdgh",
    version=VERSION,
    description="Few-shot meta-learning in TensorFlow with layer-wise gradient harmonization",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=VERSIONS["PYTHON"],
    # The folder of gin files, which lies beside the package in a clone, lies in it where it is installed.
    packages=[*find_packages(include=["tf_lwdgh", "tf_lwdgh.*"]), "tf_lwdgh.gin"],
    package_dir={"tf_lwdgh.gin": "gin"},
    package_data={"tf_lwdgh": ["py.typed"], "tf_lwdgh.server": ["page/*"], "tf_lwdgh.gin": ["*.gin", "*/*.gin"]},
    entry_points={"console_scripts": ["tf-lwdgh = tf_lwdgh.__main__:main"]},
    zip_safe=False,
    install_requires=ranged(VERSIONS["RANGES"]),
    extras_require={
        **EXTRAS,
        "gpu": [f"tensorflow[and-cuda]{VERSIONS['RANGES']['tensorflow']}"],
        "bench": PINS["bench"],
        "docs": PINS["docs"],
        "test": [*PINS["test"], *PINS["lint"], *sum(EXTRAS.values(), [])],
    },
)
