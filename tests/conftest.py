"""What every test may count on: no gin binding of another test."""

import pytest

from tf_lwdgh import config


@pytest.fixture(autouse=True)
def _no_bindings_stay():
    yield
    config.clear()
