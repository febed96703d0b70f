# SPDX-License-Identifier: Apache-2.0
"""The versions that the package works with: setup.py, and whoever examines an installation, read them here.

A range reaches from the lowest version that was tried (tools/test_versions.sh) to below the next major one.
requirements.txt pins one of each. Nothing is imported here, so that setup.py can run this file by itself.
"""

PYTHON = ">=3.10,<3.14"

RANGES = {
    "absl-py": ">=2.1,<3",
    "gin-config": ">=0.5,<1",
    "google-crc32c": ">=1.6,<2",
    "importlib-resources": ">=6.4,<8",
    "keras": ">=3.6,<4",
    "matplotlib": ">=3.9,<4",
    "numpy": ">=1.26.4,<3",
    "packaging": ">=24,<27",
    "pillow": ">=10.4,<14",
    "scipy": ">=1.13,<2",
    "tensorboard": ">=2.18,<3",
    "tensorflow": ">=2.18,<3",
    "tensorflow-datasets": ">=4.9.7,<5",
    "tqdm": ">=4.66,<5",
}

EXTRAS = {
    "serve": {
        "fastapi": ">=0.160,<1",
        "prometheus-client": ">=0.20,<1",
        "python-multipart": ">=0.0.20,<1",
        "uvicorn": ">=0.30,<1",
    },
    "ray": {"ray": ">=2.60,<3"},
    "search": {"optuna": ">=5,<6"},
}
