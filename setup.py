"""Packaging; the versions stand in requirements.txt."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "tf_lwdgh/__init__.py").read_text())[1]


def requirements() -> dict[str, list[str]]:
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


def gin_files() -> list[tuple[str, list[str]]]:
    """Where the gin files are installed: below share/, since a package `gin` exists."""
    folders = [ROOT / "gin", *(p for p in (ROOT / "gin").iterdir() if p.is_dir())]
    return [
        (f"share/tf_lwdgh/{f.relative_to(ROOT)}", [str(p.relative_to(ROOT)) for p in f.glob("*.gin")])
        for f in sorted(folders)
    ]


PINS = requirements()
TENSORFLOW = next(pin for pin in PINS["run"] if pin.startswith("tensorflow=="))

setup(
    name="tf_lwdgh",
    version=VERSION,
    description="Few-shot meta-learning in TensorFlow with layer-wise gradient harmonization",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["tf_lwdgh", "tf_lwdgh.*"]),
    package_data={"tf_lwdgh.server": ["page/*"]},
    data_files=gin_files(),
    install_requires=PINS["run"],
    extras_require={
        "gpu": [TENSORFLOW.replace("tensorflow==", "tensorflow[and-cuda]==")],
        "test": [*PINS["test"], *PINS["ray"], *PINS["search"], *PINS["serve"]],
        "bench": PINS["bench"],
        "ray": PINS["ray"],
        "search": PINS["search"],
        "serve": PINS["serve"],
    },
)
