# SPDX-License-Identifier: Apache-2.0
"""FC100 (Oreshkin et al., NeurIPS 2018): CIFAR-100 split by superclass, 60 / 20 / 20 classes."""

from __future__ import annotations

import functools

from tf_lwdgh.converters import cifar100

FORMS = {
    "pickles": "FC100_{train,val,test}.pickle",
    "cifar100": "train, test and meta of cifar-100-python.tar.gz",
}
_VAL = (
    "large_carnivores", "large_omnivores_and_herbivores", "non-insect_invertebrates",
    "small_mammals",
)  # fmt: skip
_TEST = ("aquatic_mammals", "insects", "medium_mammals", "people")
DATA_SET = cifar100.DataSet(
    name="fc100",
    title="FC100",
    forms=FORMS,
    split_of={c: "val" if s in _VAL else "test" if s in _TEST else "train" for c, s in cifar100.SUPERCLASS_OF.items()},
    split_name="oreshkin",
    authors="Oreshkin et al.",
    version="fc100-1",
)

convert = functools.partial(cifar100.convert, DATA_SET)
