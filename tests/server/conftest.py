# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share: one export, and one model loaded from it as a server does."""

from __future__ import annotations

import pytest

from tests.serving.exports import Exported
from tf_lwdgh.server.models import Models


@pytest.fixture(scope="session")
def exported(exported) -> Exported:
    """A learner of up to any number of ways on images of 16 × 16, as a SavedModel."""
    return exported["inductive"]


@pytest.fixture(scope="session")
def models(exported) -> Models:
    """The export by the name 'demo', loaded and warm."""
    found = Models(exported.path, "demo")
    found.load()
    return found
