"""The aggregators of the tasks' outer gradients, one file each; `ALL` lists them by name."""

from tf_lwdgh.aggregators.base import Aggregator
from tf_lwdgh.aggregators.lwdgh import LWDGH
from tf_lwdgh.aggregators.mean import Mean

ALL = {"mean": Mean, "lwdgh": LWDGH}

__all__ = ["ALL", "Aggregator", "LWDGH", "Mean"]
