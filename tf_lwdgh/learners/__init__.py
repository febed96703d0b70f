"""The learners, one file each; `ALL` lists them by name."""

from tf_lwdgh.learners.base import Algorithm, accuracy, cross_entropy
from tf_lwdgh.learners.maml import MAML

ALL = {"maml": MAML}

__all__ = ["ALL", "Algorithm", "MAML", "accuracy", "cross_entropy"]
