# SPDX-License-Identifier: Apache-2.0
"""Any image classification set of TensorFlow Datasets, its classes dealt to train, val and test.

Images are kept as TFDS stores them: JPEG stays the JPEG of the source, PNG the PNG.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from tf_lwdgh.converters import folders, pictures, tfds_features, tfds_source
from tf_lwdgh.converters.class_spool import ClassSpool
from tf_lwdgh.converters.problems import Problems
from tf_lwdgh.data import store

VERSION = "tfds-1"
UNITS = ("classes", "superclasses", "own")


@dataclasses.dataclass(frozen=True)
class Deal:
    """How the classes come to train, val and test.

    Attributes:
      unit: what is dealt: 'classes', whole 'superclasses', or nothing, since the set's 'own' splits
        have classes of their own.
      choice: fractions or lists of the units' names.
    """

    unit: str
    choice: folders.SplitChoice = folders.SplitChoice()

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"--split must be one of {', '.join(UNITS)}. Received: {self.unit!r}.")
        if (self.choice.name == "folders") != (self.unit == "own"):
            rule = "excludes" if self.unit == "own" else "needs one of"
            raise ValueError(f"--split={self.unit} {rule} --fractions and --lists.")

    @property
    def name(self) -> str:
        """For the data set's spec."""
        return "own" if self.unit == "own" else f"{self.unit} by {self.choice.name}"


@dataclasses.dataclass
class Sorted:
    """What is known of the images once they lie by class.

    Attributes:
      spool: the images.
      superclass_of: the superclass of each class, where there are some.
      split_of: the set's own split of each class, or None where it is in several.
      checksum: sha256 of labels and images in order.
    """

    spool: ClassSpool
    superclass_of: dict[int, int]
    split_of: dict[int, str | None]
    checksum: str


def convert(
    dataset: str,
    out_dir: str | os.PathLike,
    *,
    deal: Deal,
    name: str,
    tfds_data_dir: str | os.PathLike | None = None,
    tfds_splits: tuple[str, ...] | None = None,
    keys: tfds_features.Keys = tfds_features.Keys(),
    image_size: int | None = None,
    min_images: int = 2,
    download: bool = False,
    stand_in: int | None = None,
    overwrite: bool = False,
    skip_bad: bool = False,
) -> tuple[store.DatasetSpec, Problems]:
    """Writes the records of a TFDS set.

    Args:
      dataset: the set's name, name/config or name/config:version.
      out_dir: of the records.
      deal: how the classes come to train, val and test.
      name: of the records.
      tfds_data_dir: where TFDS keeps its sets; None: its own default.
      tfds_splits: the set's splits to pool; by default those of train, validation and test that
        it has.
      keys: its features, where its supervised keys do not name them; and the superclass's.
      image_size: height and width to resize to (stored as PNG); None keeps every image's bytes.
      min_images: a class with fewer is short.
      download: let TFDS fetch and prepare the set where it is not there.
      stand_in: that many made-up images a class in place of the set's; it need not be there.
      overwrite: replace what `out_dir` holds.
      skip_bad: leave out what is corrupt, short or missing.

    Raises:
      FileNotFoundError: the set, or a list, is not there.
      ValueError: the set is unknown or none of images with a class each; a class has no single
        superclass, is short, or is in several splits of its own; an image is corrupt.
    """
    problems = Problems(skip_bad=skip_bad)
    pictures.check_size(image_size)
    if deal.unit == "superclasses" and keys.superclass is None:
        raise ValueError("--split=superclasses needs --superclass, the feature that names them.")
    builder, features, examples = _open(
        dataset, keys, tfds_data_dir, tfds_splits, download=download, stand_in=stand_in, unit=deal.unit
    )
    with store.scratch_folder(out_dir, "sorted") as folder:
        arrived = sort(examples, features, folder, builder.info.full_name)
        chosen = _chosen(arrived, features, deal, problems)
        kept = _long_enough(chosen, arrived, features, min_images, problems)
        made_up = " stand-in" if stand_in else ""
        spec = store.write_dataset(
            out_dir,
            name,
            {s: [(features.classes[i], _images(arrived, i, features, image_size, problems))
                 for i in kept[s]] for s in store.SPLITS},
            image_size=image_size or _common_size(arrived, features, kept),
            source_checksum=arrived.checksum,
            converter_version=f"{VERSION}{made_up} {builder.info.full_name}",
            split_name=deal.name,
            superclasses={
                features.classes[i]: features.superclasses[s]
                for i, s in arrived.superclass_of.items()
            },
            overwrite=overwrite,
        )  # fmt: skip
    return spec, problems


def _open(dataset, keys, data_dir, splits, *, download: bool, stand_in: int | None, unit: str):
    """(builder, features, examples) of the set, or of what stands in for it."""
    if stand_in is None:
        builder = tfds_source.prepared(dataset, data_dir, download=download)
        features = tfds_features.find(builder.info, keys)
        chosen = _splits(builder.info, splits)
        return builder, features, tfds_source.read(builder, features, chosen)
    if stand_in < 1 or unit == "own":
        raise ValueError(
            "--stand_in must be a number of images a class above 0, and has no splits of its own. "
            f"Received: --stand_in={stand_in} --split={unit}."
        )
    builder = tfds_source.from_code(dataset, data_dir)
    features = tfds_features.find(builder.info, keys)
    return builder, features, tfds_source.generate(features, stand_in)


def _splits(info, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    there = tuple(info.splits)
    if wanted is None:
        wanted = tuple(s for names in folders.NAMES.values() for s in names if s in there)
    unknown = [s for s in wanted if s.split("[")[0] not in there]
    if unknown or not wanted:
        raise ValueError(
            f"--tfds_splits must name splits of {info.full_name}: {', '.join(there)}. "
            f"Received: {'+'.join(wanted) or 'nothing'}."
        )
    return wanted


def sort(
    examples: Iterable[tfds_source.Example],
    features: tfds_features.Features,
    folder: str | os.PathLike,
    title: str,
) -> Sorted:
    """Reads every example once, and lays it by its class.

    Raises:
      ValueError: an example has no class, or a class has several superclasses or none.
    """
    digest = hashlib.sha256()
    out = Sorted(ClassSpool(folder), {}, {}, "")
    for i, (split, image, label, superclass) in enumerate(examples):
        if not 0 <= label < len(features.classes):
            raise ValueError(
                f"{title}: example {i}, of split {split!r}, has no class (label {label}). Leave such a "
                "split out with --tfds_splits."
            )
        if superclass is not None:
            others = {superclass, out.superclass_of.setdefault(label, superclass)}
            if len(others) > 1 or superclass < 0:
                found = [features.superclasses[i] if i >= 0 else "none" for i in sorted(others)]
                raise ValueError(
                    f"--superclass={features.keys.superclass}: each class of {title} must be in one "
                    f"superclass. Received: class {features.classes[label]!r} in {' and '.join(found)}."
                )
        if out.split_of.setdefault(label, split) != split:
            out.split_of[label] = None
        digest.update(label.to_bytes(8, "little") + len(image).to_bytes(8, "little") + image)
        out.spool.add(label, image)
    out.spool.flush()
    out.checksum = f"sha256:{digest.hexdigest()}"
    return out


def _chosen(arrived: Sorted, features: tfds_features.Features, deal: Deal, problems: Problems) -> dict[str, list[int]]:
    """The classes of each split, in order of superclass and name."""
    names = features.classes
    classes = {names[i]: i for i in arrived.spool.counts}
    if deal.unit == "own":
        dealt = _own(arrived, names)
    elif deal.unit == "classes":
        dealt = _dealt(deal, {n: [i] for n, i in classes.items()}, problems)
    else:
        members: dict[str, list[int]] = {}
        for class_id, superclass in arrived.superclass_of.items():
            members.setdefault(features.superclasses[superclass], []).append(class_id)
        dealt = _dealt(deal, members, problems)

    def place(class_id: int) -> tuple[str, str]:
        superclass = arrived.superclass_of.get(class_id)
        return "" if superclass is None else features.superclasses[superclass], names[class_id]

    return {s: sorted(dealt[s], key=place) for s in store.SPLITS}


def _own(arrived: Sorted, names: tuple[str, ...]) -> dict[str, list[int]]:
    shared = sorted(names[i] for i, split in arrived.split_of.items() if split is None)
    if shared:
        raise ValueError(
            "--split=own needs splits without a common class; say --split=classes. In several: "
            f"{', '.join(shared[:10])}."
        )
    home = {i: split.split("[")[0] for i, split in arrived.split_of.items()}
    out = {s: [i for i in home if home[i] in folders.NAMES[s]] for s in store.SPLITS}
    if not all(out.values()) or sum(map(len, out.values())) < len(home):
        raise ValueError(
            "--split=own needs the splits train, validation and test, and no other; see --tfds_splits. "
            f"Received: {', '.join(dict.fromkeys(home.values()))}."
        )
    return out


def _dealt(deal: Deal, members: Mapping[str, list[int]], problems: Problems) -> dict[str, list[int]]:
    """The classes of each split, from the names of classes or superclasses and what they hold."""
    if deal.choice.fractions is not None:
        named = folders.by_fractions(sorted(members), deal.choice)
    else:
        named = folders.read_lists(deal.choice.lists)
        folders.refuse_repeats(named)
    for split in store.SPLITS:
        for missing in (n for n in named[split] if n not in members):
            problems.add(f"{split}.txt", f"the set has no images of {missing!r} ({deal.unit})")
    return {s: [i for n in named[s] for i in members.get(n, ())] for s in store.SPLITS}


def _long_enough(
    chosen: Mapping[str, list[int]],
    arrived: Sorted,
    features: tfds_features.Features,
    min_images: int,
    problems: Problems,
) -> dict[str, list[int]]:
    """The classes with images enough; a short one is a problem."""
    kept: dict[str, list[int]] = {split: [] for split in store.SPLITS}
    for split, ids in chosen.items():
        for i in ids:
            found = arrived.spool.counts[i]
            if found >= min_images:
                kept[split].append(i)
            else:
                rule = f"a class needs at least {min_images} images, found {found}"
                problems.add(f"{split} class {features.classes[i]!r}", rule)
    return kept


def _images(
    arrived: Sorted,
    class_id: int,
    features: tfds_features.Features,
    image_size: int | None,
    problems: Problems,
) -> Iterator[bytes | np.ndarray]:
    for n, content in enumerate(arrived.spool.images(class_id)):
        where = f"image {n} of class {features.classes[class_id]!r}"
        image = pictures.read_image(where, lambda c=content: c, problems, image_size=image_size)
        if image is not None:
            yield image


def _common_size(arrived: Sorted, features: tfds_features.Features, kept: Mapping[str, list[int]]) -> int | None:
    """The height and width that all images share, as the set says or from their headers."""
    height, width, _ = features.image_shape
    if height and width:
        return height if height == width else None
    ids = (i for split in store.SPLITS for i in kept[split])
    return pictures.common_size(io.BytesIO(image) for i in ids for image in arrived.spool.images(i))
