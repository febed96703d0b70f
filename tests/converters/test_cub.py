# SPDX-License-Identifier: Apache-2.0
"""CUB-200-2011: the three splits, the cut to the boxes, and the official tables' damage."""

import re
import tarfile

import numpy as np
import pytest

from tests.converters import raw
from tf_lwdgh.converters import cub
from tf_lwdgh.data import store

NAMES = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross",
         "004.Groove_billed_Ani", "005.Crested_Auklet"]  # fmt: skip
SPLITS = {"ye": ((1, 2), (4,)), "sorted": ((2,), (4,)), "meta_dataset": ((5,), (4,))}
# x, y, width, height as in the official file; the first and the third leave the image.
BOXES = ("-2.0 3.0 16.0 8.0", "1.7 2.7 11.0 11.0", "10.0 9.0 20.0 30.0")
KEPT = ((slice(3, 11), slice(0, 14)), (slice(2, 14), slice(1, 13)), (slice(9, 16), slice(10, 20)))


def pixels(number: int, image: int) -> np.ndarray:
    """20 wide, 16 high."""
    return np.random.default_rng((number, image)).integers(0, 256, (16, 20, 3), np.uint8)


@pytest.fixture
def official(tmp_path, monkeypatch):
    """The archive's layout: tables beside images/, and a file above the folder."""
    monkeypatch.setattr(cub, "CLASSES", len(NAMES))
    monkeypatch.setattr(cub, "IMAGES", 3 * len(NAMES))
    monkeypatch.setattr(cub, "SPLITS", SPLITS)
    home = tmp_path / "top" / "CUB_200_2011"
    tables = {"images": [], "image_class_labels": [], "bounding_boxes": []}
    for number, name in enumerate(NAMES, 1):
        for image in range(3):
            line = len(tables["images"]) + 1
            file = f"{name}/{name[4:]}_{image:04d}_{line}.jpg"
            raw.save(home / "images" / file, pixels(number, image), format="PNG")
            tables["images"].append(f"{line} {file}")
            tables["image_class_labels"].append(f"{line} {number}")
            tables["bounding_boxes"].append(f"{line} {BOXES[image]}")
    for name, lines in tables.items():
        (home / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "top" / "attributes.txt").write_text("1 has_bill_shape::curved\n")
    return home


def packed(official, path):
    with tarfile.open(path, "w:gz") as file:
        file.add(official, arcname="CUB_200_2011")
        file.add(official.parent / "attributes.txt", arcname="attributes.txt")
    return path


def oracle(image: np.ndarray, size: int) -> np.ndarray:
    """Every pixel repeated along each axis, then plain block means."""
    height, width = image.shape[:2]
    fine = image.astype(np.float64).repeat(size, 0).repeat(size, 1)
    return fine.reshape(size, height, size, width, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("split", SPLITS)
def test_archive_and_folder_give_the_split_asked_for(official, tmp_path, split):
    source = packed(official, tmp_path / "CUB_200_2011.tgz")
    before = source.read_bytes(), raw.files(official)
    spec, _ = cub.convert(source, tmp_path / "data" / "a", split=split, image_size=8)
    other, _ = cub.convert(official, tmp_path / "data" / "b", split=split, image_size=8)
    assert spec.content_checksum == other.content_checksum
    assert (spec.split_name, spec.name, spec.image_size) == (split, "cub", 8)
    val, test = SPLITS[split]
    train = [n for n in range(1, 6) if n not in val + test]
    assert [[int(c[:3]) for c in by_class] for by_class in raw.records(tmp_path / "data/a").values()] == [
        train, list(val), list(test)
    ]  # fmt: skip
    assert (source.read_bytes(), raw.files(official)) == before
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["a", "b"]


def test_whole_images_are_averaged_to_a_square(official, tmp_path):
    cub.convert(official, tmp_path / "out", split="ye", image_size=8)
    images = raw.records(tmp_path / "out")["test"][NAMES[3]]
    for i, image in enumerate(images):
        assert np.abs(raw.decode(image) - oracle(pixels(4, i), 8)).max() <= 0.501


def test_cropping_keeps_the_box_rounded_outwards_and_clipped(official, tmp_path):
    spec, _ = cub.convert(official, tmp_path / "out", split="ye", crop=True, image_size=4)
    assert spec.split_name == "ye cropped"
    images = raw.records(tmp_path / "out")["test"][NAMES[3]]
    for i, (image, kept) in enumerate(zip(images, KEPT, strict=True)):
        assert np.abs(raw.decode(image) - oracle(pixels(4, i)[kept], 4)).max() <= 0.501


@pytest.mark.parametrize(
    "split, sizes", [("ye", (100, 50, 50)), ("sorted", (100, 50, 50)), ("meta_dataset", (140, 30, 30))]
)
def test_the_published_splits_have_their_sizes(split, sizes):
    found = cub.classes(split)
    assert tuple(len(found[s]) for s in store.SPLITS) == sizes
    assert sorted(sum(found.values(), [])) == list(range(1, 201))
    assert all(numbers == sorted(numbers) for numbers in found.values())


def test_the_published_splits_have_their_classes():
    ordered = cub.classes("sorted")
    assert [[n for n in ordered[s] if n < 10] for s in store.SPLITS] == [[1, 3, 5, 7, 9], [2, 6], [4, 8]]
    # White-throated Sparrow, Black-and-white Warbler and Gray Catbird
    assert [next(s for s in store.SPLITS if n in cub.classes("ye")[s]) for n in (133, 159, 19)] == [
        "test", "val", "train",
    ]  # fmt: skip
    # Rhinoceros Auklet, Frigatebird and Red-cockaded Woodpecker
    meta = cub.classes("meta_dataset")
    assert 8 in meta["test"] and 44 in meta["val"] and 190 in meta["train"]
    with pytest.raises(ValueError, match="--split must be one of ye, sorted, meta_dataset. .* 'feat'"):
        cub.classes("feat")


def rewrite(path, old, new):
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    "table, old, new, text",
    [
        ("images", "1 001.", "1 ../001.", "images.txt: image 1 must be class/file"),
        ("images", "2 001.", "2 002.", "image 2 must be .* its number 1 in 3 digits"),
        ("images", "2 001.", "x 001.", "images.txt, line 2: it must be an image's number and 1 value"),
        ("image_class_labels", "3 1\n", "", "image_class_labels.txt has no line for image 3"),
        ("bounding_boxes", "1 -2.0 3.0", "1 -2.0", "boxes.txt, line 1: .* number and 4 numbers"),
        ("bounding_boxes", "1 -2.0 3.0", "1 -2.0 nan", "boxes.txt, line 1: .* number and 4 numbers"),
        ("bounding_boxes", "1 -2.0 3.0", "1 20.0 3.0", r"_1\.jpg: the image is .* \(20, 3, 36, 11\) lies"),
    ],
)
def test_wrong_tables_are_named(official, tmp_path, table, old, new, text):
    rewrite(official / f"{table}.txt", old, new)
    with pytest.raises(ValueError, match=text):
        cub.convert(official, tmp_path / "out", split="sorted", crop=True)
    assert not (tmp_path / "out").exists()


def test_missing_and_corrupt_files_are_named_or_counted(official, tmp_path):
    first, second = sorted((official / "images" / NAMES[0]).iterdir())[:2]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-30])
    with pytest.raises(ValueError, match=rf"{re.escape(first.name)}: the file is missing"):
        cub.convert(official, tmp_path / "out", split="ye")
    spec, found = cub.convert(official, tmp_path / "out", split="ye", skip_bad=True)
    assert len(found.found) == 2 and f"{second.name}: the image is corrupt" in found.summary()
    assert spec.images_per_class[spec.class_names.index(NAMES[0])] == 1
    rewrite(official / "images.txt", f"15 {NAMES[4]}", "")
    text = (official / "images.txt").read_text().splitlines()
    (official / "images.txt").write_text("\n".join(text[:14]))
    with pytest.raises(ValueError, match="images.txt: CUB-200-2011 has 15 images, found 14"):
        cub.convert(official, tmp_path / "out2", split="ye")
    (official / "bounding_boxes.txt").unlink()
    with pytest.raises(FileNotFoundError, match="bounding_boxes.txt is missing"):
        cub.convert(official, tmp_path / "out2", split="ye", crop=True)
    (official / "images.txt").unlink()
    with pytest.raises(FileNotFoundError, match="must be CUB_200_2011.tgz or its folder, with"):
        cub.convert(official, tmp_path / "out2", split="ye")


def test_the_split_is_never_guessed(capsys):
    from tf_lwdgh.converters.commands import cub as command

    with pytest.raises(SystemExit):
        command.main(["--source=x"])
    assert "required: --split" in capsys.readouterr().err
