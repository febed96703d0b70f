"""FC100 (Oreshkin et al., NeurIPS 2018): CIFAR-100 split by superclass, 60 / 20 / 20 classes."""

from __future__ import annotations

import os
import pathlib

from tf_lwdgh.converters import archives, cifar100, forms, pickled_splits
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

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
    title="FC100",
    split_of={
        c: "val" if s in _VAL else "test" if s in _TEST else "train"
        for c, s in cifar100.SUPERCLASS_OF.items()
    },
    split_name="oreshkin",
    version="fc100-1",
)


def convert(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    form: str | None = None,
    image_size: int = 32,
    name: str = "fc100",
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes FC100's records, with superclasses where the labels are CIFAR-100's own numbers.

    Args:
      source: the folder that holds one of `FORMS`, or an archive of it.
      out_dir: of the records.
      form: which of `FORMS`; needed only where the source holds both.
      image_size: height and width of the records' images.
      name: of the data set.
      overwrite: replace what `out_dir` holds.
      skip_bad: go on where a class is short or missing.

    Raises:
      FileNotFoundError: the source, or a split's file, is missing.
      ValueError: none or both of the forms are there, a file has not the keys, types and shapes,
        or a count differs.
    """
    problems = Problems(skip_bad=skip_bad)
    if image_size < 1:
        raise ValueError(f"--image_size must be at least 1. Received: {image_size}.")
    with archives.as_folder(source, beside=out_dir) as unpacked:
        root, found = forms.locate(unpacked, FORMS, _forms_at, form=form, title="FC100")
        if found == "pickles":
            classes = cifar100.from_pickles(root, "fc100", DATA_SET, image_size)
        else:
            classes = cifar100.from_official(root, DATA_SET, image_size)
        spec = cifar100.write(
            classes, out_dir, DATA_SET, problems, name=name, image_size=image_size,
            source=source, overwrite=overwrite,
        )  # fmt: skip
    return spec, problems


def _forms_at(root: pathlib.Path) -> list[str]:
    found = ["pickles"] if pickled_splits.find(root, "fc100") else []
    return [*found, "cifar100"] if cifar100.is_official(root) else found
