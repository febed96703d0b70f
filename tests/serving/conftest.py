# SPDX-License-Identifier: Apache-2.0
"""What the tests of this folder share."""

from __future__ import annotations

import pytest

from tests.serving.exports import Exports


@pytest.fixture(scope="session")
def exported(exports) -> Exports:
    """Some learners as SavedModels, each made when it is first asked for."""
    return exports
