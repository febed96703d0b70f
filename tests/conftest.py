# SPDX-License-Identifier: Apache-2.0
"""What every test may count on: no gin binding or handler of another test; and how their graphs are run."""

import gc
import pathlib
import signal

import pytest
import tensorflow as tf
from tensorflow.python.framework import ops
from xdist.scheduler import LoadFileScheduling

from tests.serving import exports as exporting
from tf_lwdgh import config as settings

# As Threads has it where tasks run side by side; with several threads oneDNN's sums are not the same to the bit.
tf.config.threading.set_intra_op_parallelism_threads(1)

# Their graphs run once or twice, and TensorFlow's optimizer of graphs takes longer than they do. What is
# trained and served (runs, serving, the commands, a mirrored run) is optimized as a user's is; the tests of
# the server look at what is around the model.
NOT_OPTIMIZED = ("aggregators", "learners", "networks", "outer", "server", "serving/test_every_learner.py")

ASK_FOR_EXPORTS = (
    "tests/server/",
    *(
        f"tests/serving/test_{n}.py"
        for n in ("inputs", "kept_classifiers", "module", "predict", "serving_tools", "threads")
    ),
)


@pytest.fixture(autouse=True)
def _nothing_stays():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    settings.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module", autouse=True)
def _graphs_run_as_written(request):
    path = request.path.relative_to(pathlib.Path(__file__).parent)
    off = path.parts[0] in NOT_OPTIMIZED or path.as_posix() in NOT_OPTIMIZED
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": off})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(scope="module", autouse=True)
def _graphs_are_let_go():
    """TensorFlow registers every tf.custom_gradient of a graph for good, and the graph with it.

    A training traces one. The tests trace thousands, and a worker of theirs would end at 12 GB.
    """
    registered = ops.gradient_registry._registry
    before = set(registered)
    yield
    for name in [n for n in registered if n.startswith("CustomGradient-") and n not in before]:
        del registered[name]
    gc.collect()


class WholeFiles(LoadFileScheduling):
    """Gives a worker whole files, and one worker all that ask for `exported`, which takes long to make."""

    def _split_scope(self, nodeid: str) -> str:
        return "exports" if nodeid.startswith(ASK_FOR_EXPORTS) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return WholeFiles(config, log)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run what takes minutes")


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> exporting.Exports:
    """Some learners as SavedModels, each made when it is first asked for."""
    return exporting.Exports(str(tmp_path_factory.mktemp("exports")))


def pytest_collection_modifyitems(config, items):
    """What takes longest comes first, so that no worker is left alone with it at the end (tools/test.sh)."""
    if not config.getoption("--slow"):
        left_out = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda i: (i.path.name != "test_readme.py", not i.nodeid.startswith(ASK_FOR_EXPORTS)))
