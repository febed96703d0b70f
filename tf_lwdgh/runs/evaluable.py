# SPDX-License-Identifier: Apache-2.0
"""Whether a run can be evaluated once it is trained, asked before it is."""

from __future__ import annotations

from tf_lwdgh.outer.evaluation import Evaluation
from tf_lwdgh.runs.experiment import Assembly


def check(assembly: Assembly, evaluation: Evaluation) -> None:
    """Makes sure that the split that is evaluated can fill every task, where the run's own data set has it.

    Args:
      assembly: the experiment, about to be trained.
      evaluation: how it is to be evaluated.

    Raises:
      ValueError: it can't; the message has the bindings that are the evaluation's alone.
    """
    spec, split = assembly.spec, evaluation.split
    if spec is None or evaluation.dataset is not None or not spec.classes(split):
        return
    try:
        assembly.evaluation_episode(evaluation)
    except ValueError as error:
        raise ValueError(
            f"the run could not be evaluated on split {split!r} (Evaluation.n_way, Evaluation.k_shot and "
            f"Evaluation.n_query change its tasks alone): {error}"
        ) from error
