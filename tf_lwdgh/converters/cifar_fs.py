# SPDX-License-Identifier: Apache-2.0
"""CIFAR-FS (Bertinetto et al., ICLR 2019): CIFAR-100's classes, 64 / 16 / 20 at random."""

from __future__ import annotations

import functools

from tf_lwdgh.converters import cifar100

FORMS = {
    "folders": "data/<class>/*.png, with or without splits/bertinetto/{train,val,test}.txt",
    "pickles": "CIFAR_FS_{train,val,test}.pickle",
    "cifar100": "train, test and meta of cifar-100-python.tar.gz",
}
_VAL = """
    beaver otter flatfish shark lamp television beetle butterfly sea camel cattle crab crocodile
    maple_tree motorcycle tractor
""".split()
_TEST = """
    whale poppy rose sweet_pepper telephone bed table wardrobe leopard plain chimpanzee fox snail
    worm baby man woman bicycle pickup_truck rocket
""".split()
DATA_SET = cifar100.DataSet(
    name="cifar_fs",
    title="CIFAR-FS",
    forms=FORMS,
    split_of={c: "val" if c in _VAL else "test" if c in _TEST else "train" for c in cifar100.FINE},
    split_name="bertinetto",
    authors="Bertinetto et al.",
    version="cifar_fs-2",
)

convert = functools.partial(cifar100.convert, DATA_SET)
