"""CIFAR-FS (Bertinetto et al., ICLR 2019): CIFAR-100's classes, 64 / 16 / 20 at random."""

from __future__ import annotations

import os
import pathlib

from tf_lwdgh.converters import archives, cifar100, folders, forms, pickled_splits
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

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
    title="CIFAR-FS",
    split_of={
        c: "val" if c in _VAL else "test" if c in _TEST else "train" for c in cifar100.FINE
    },
    split_name="bertinetto",
    version="cifar_fs-1",
)


def convert(
    source: str | os.PathLike,
    out_dir: str | os.PathLike,
    *,
    form: str | None = None,
    image_size: int = 32,
    name: str = "cifar_fs",
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes CIFAR-FS's records.

    Args:
      source: the folder that holds one of `FORMS`, or an archive of it.
      out_dir: of the records.
      form: which of `FORMS`; needed only where the source holds several.
      image_size: height and width of the records' images.
      name: of the data set.
      overwrite: replace what `out_dir` holds.
      skip_bad: leave out what is corrupt, short or missing.

    Raises:
      FileNotFoundError: the source, or a split's file, is missing.
      ValueError: none or several of the forms are there, a list or a count differs, an image is
        corrupt.
    """
    problems = Problems(skip_bad=skip_bad)
    if image_size < 1:
        raise ValueError(f"--image_size must be at least 1. Received: {image_size}.")
    with archives.as_folder(source, beside=out_dir) as unpacked:
        root, found = forms.locate(unpacked, FORMS, _forms_at, form=form, title="CIFAR-FS")
        if found == "pickles":
            classes = cifar100.from_pickles(root, "cifar_fs", DATA_SET, image_size)
        elif found == "cifar100":
            classes = cifar100.from_official(root, DATA_SET, image_size)
        else:
            _check_lists(root / "splits" / "bertinetto")
            classes = cifar100.from_folder(root / "data", DATA_SET, image_size, problems)
        spec = cifar100.write(
            classes, out_dir, DATA_SET, problems, name=name, image_size=image_size,
            source=source, overwrite=overwrite,
        )  # fmt: skip
    return spec, problems


def _forms_at(root: pathlib.Path) -> list[str]:
    data = root / "data"
    there = set(folders.subfolders(data)) if data.is_dir() else set()
    found = ["folders"] if there & set(cifar100.FINE) else []
    found += ["pickles"] if pickled_splits.find(root, "cifar_fs") else []
    return [*found, "cifar100"] if cifar100.is_official(root) else found


def _check_lists(folder: pathlib.Path) -> None:
    """Compares the lists, where they are there, with the published ones."""
    for split in store.SPLITS:
        path = folder / f"{split}.txt"
        if path.is_file():
            listed = set(path.read_text(encoding="utf-8").split())
            differ = sorted(listed ^ set(DATA_SET.classes(split)))
            if differ:
                raise ValueError(
                    f"{path} must name the {split} classes of Bertinetto et al. It differs in: "
                    f"{', '.join(differ[:10])}."
                )
