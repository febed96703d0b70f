# SPDX-License-Identifier: Apache-2.0
"""CIFAR-FS and FC100: all forms give the right classes; names only where they are known."""

import pickle
import shutil
import tarfile

import numpy as np
import pytest

from tests.converters import raw
from tf_lwdgh.converters import cifar100, cifar_fs, fc100
from tf_lwdgh.data import store

IMAGES = 3
# CIFAR-100's own numbers of the classes in each superclass, in the alphabetical order of those.
COARSE = (
    (4, 30, 55, 72, 95), (1, 32, 67, 73, 91), (54, 62, 70, 82, 92), (9, 10, 16, 28, 61),
    (0, 51, 53, 57, 83), (22, 39, 40, 86, 87), (5, 20, 25, 84, 94), (6, 7, 14, 18, 24),
    (3, 42, 43, 88, 97), (12, 17, 37, 68, 76), (23, 33, 49, 60, 71), (15, 19, 21, 31, 38),
    (34, 63, 64, 66, 75), (26, 45, 77, 79, 99), (2, 11, 35, 46, 98), (27, 29, 44, 78, 93),
    (36, 50, 65, 74, 80), (47, 52, 56, 59, 96), (8, 13, 48, 58, 90), (41, 69, 81, 85, 89),
)  # fmt: skip
# FC100's superclasses by number, as in TADAM's own code.
FC100 = {
    "train": {1, 2, 3, 4, 5, 6, 9, 10, 15, 17, 18, 19}, "val": {8, 11, 13, 16}, "test": {0, 7, 12, 14},
}  # fmt: skip
SETS = {"cifar_fs": cifar_fs, "fc100": fc100}


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(cifar100, "IMAGES", IMAGES)


def pixels(class_name: str) -> np.ndarray:
    """[IMAGES, 32, 32, 3]; the first pixel tells class and image."""
    images = np.zeros((IMAGES, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = cifar100.FINE.index(class_name), np.arange(IMAGES)
    images[:, 5, 9] = (250, 120, 3)
    return images


def write_pickles(root, stem, data_set, *, fine=True, key=str, protocol=2):
    """`fine`: labels are CIFAR-100's own numbers, else they count from 0 over all splits."""
    root.mkdir(exist_ok=True)
    first = 0
    for split in store.SPLITS:
        names = sorted(data_set.classes(split))
        order = np.random.default_rng(0).permutation(IMAGES * len(names))
        labels = [cifar100.FINE.index(c) if fine else first + i for i, c in enumerate(names)]
        first += len(names)
        content = {
            key("data"): np.concatenate([pixels(c) for c in names])[order],
            key("labels"): np.repeat(labels, IMAGES)[order].tolist(),
        }
        (root / f"{stem}_{split}.pickle").write_bytes(pickle.dumps(content, protocol))
    return root


def write_folders(root, *, lists=True):
    for name in cifar100.FINE:
        for i, image in enumerate(pixels(name)):
            raw.save(root / "cifar100" / "data" / name / f"{name}_s_{i:06d}.png", image)
    for split in store.SPLITS if lists else ():
        path = root / "cifar100" / "splits" / "bertinetto" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(cifar_fs.DATA_SET.classes(split)) + "\n")
    return root


def write_official(root):
    """Python 2 wrote it: bytes keys, rows of 1,024 reds, greens and blues; 2 of 3 images train."""
    root.mkdir(parents=True)
    for part, chosen in (("train", (0, 2)), ("test", (1,))):
        images = np.stack([pixels(c)[i] for i in chosen for c in cifar100.FINE])
        content = {
            b"data": images.transpose(0, 3, 1, 2).reshape(len(images), 3072),
            b"fine_labels": list(range(100)) * len(chosen),
            b"filenames": [b"x"] * len(images),
        }
        (root / part).write_bytes(pickle.dumps(content, 2))
    (root / "meta").write_bytes(pickle.dumps({b"fine_label_names": list(cifar100.FINE)}, 2))
    return root


def check(folder, data_set):
    """Every class is in its split under its name, with its own images and superclass."""
    spec, records = store.DatasetSpec.load(folder), raw.records(folder)
    for split in store.SPLITS:
        assert list(records[split]) == data_set.classes(split)
        for name, images in records[split].items():
            got = np.stack([raw.decode(e) for e in images])
            got = got[np.argsort(got[:, 0, 0, 1])]
            np.testing.assert_array_equal(got, pixels(name))
    found = [spec.superclass_names[i] for i in spec.superclasses]
    assert found == [cifar100.SUPERCLASS_OF[c] for c in spec.class_names]
    assert (spec.image_size, spec.encoding, spec.split_name) == (32, "png", data_set.split_name)


def test_the_classes_are_cifar_100s():
    assert len(cifar100.FINE) == 100 and list(cifar100.SUPERCLASSES) == sorted(cifar100.SUPERCLASSES)
    for numbers, name in zip(COARSE, cifar100.SUPERCLASSES, strict=True):
        assert tuple(cifar100.FINE.index(c) for c in cifar100.SUPERCLASSES[name].split()) == numbers


def test_the_splits_have_the_published_sizes_and_classes():
    sizes = {n: [len(m.DATA_SET.classes(s)) for s in store.SPLITS] for n, m in SETS.items()}
    assert sizes == {"cifar_fs": [64, 16, 20], "fc100": [60, 20, 20]}
    for split, superclasses in FC100.items():
        expected = {i for n in superclasses for i in COARSE[n]}
        assert {cifar100.FINE.index(c) for c in fc100.DATA_SET.classes(split)} == expected
    for name, split in {"otter": "val", "rocket": "test", "boy": "train", "worm": "test"}.items():
        assert name in cifar_fs.DATA_SET.classes(split)


@pytest.mark.parametrize("options", [{}, {"key": str.encode, "protocol": 5}])
@pytest.mark.parametrize("name", SETS)
def test_pickles_with_cifar_100s_numbers_have_names(tmp_path, name, options):
    module = SETS[name]
    stem = {"cifar_fs": "CIFAR_FS", "fc100": "FC100"}[name]
    source = write_pickles(tmp_path / "in", stem, module.DATA_SET, **options)
    before = raw.files(source)
    module.convert(source, tmp_path / "out")
    check(tmp_path / "out", module.DATA_SET)
    nested = "BiLevel" in (tmp_path / "out" / store.SPEC_FILE).read_text()
    assert nested == (name == "fc100") and raw.files(source) == before


@pytest.mark.parametrize("name", SETS)
def test_the_names_of_other_labels_are_not_guessed(tmp_path, name):
    module = SETS[name]
    stem = {"cifar_fs": "CIFAR_FS", "fc100": "FC100"}[name]
    spec, _ = module.convert(write_pickles(tmp_path / "in", stem, module.DATA_SET, fine=False), tmp_path / "out")
    first = spec.classes_per_split["train"]
    assert spec.class_names[:2] == ("train-00", "train-01") and spec.superclasses == ()
    assert spec.class_names[first] == f"val-{first}" and spec.class_names[-1] == "test-99"
    images = raw.records(tmp_path / "out")["val"][f"val-{first}"]
    (number,) = {raw.decode(e)[0, 0, 0] for e in images}
    assert cifar100.FINE[number] == sorted(module.DATA_SET.classes("val"))[0]


def test_cifar_fs_folders_keep_every_byte(tmp_path):
    source = write_folders(tmp_path / "in")
    cifar_fs.convert(source, tmp_path / "out")
    check(tmp_path / "out", cifar_fs.DATA_SET)
    path = source / "cifar100/data/worm/worm_s_000000.png"
    assert raw.records(tmp_path / "out")["test"]["worm"][0] == path.read_bytes()
    shutil.rmtree(source / "cifar100/splits")
    assert (
        cifar_fs.convert(source, tmp_path / "b")[0].content_checksum
        == store.DatasetSpec.load(tmp_path / "out").content_checksum
    )


@pytest.mark.parametrize("name", SETS)
def test_cifar_100_itself_will_do(tmp_path, name):
    with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as file:
        file.add(write_official(tmp_path / "in"), arcname="cifar-100-python")
    SETS[name].convert(tmp_path / "cifar-100-python.tar.gz", tmp_path / "data" / "out")
    check(tmp_path / "data" / "out", SETS[name].DATA_SET)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["out"]


def test_damage_is_named_or_counted(tmp_path):
    source = write_folders(tmp_path / "in")
    data = source / "cifar100" / "data"
    shutil.rmtree(data / "bee")
    (data / "sea" / "sea_s_000000.png").unlink()
    (data / "man" / "man_s_000001.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(ValueError, match="data/bee: the folder of this train class is missing"):
        cifar_fs.convert(source, tmp_path / "out")
    spec, found = cifar_fs.convert(source, tmp_path / "out", skip_bad=True)
    for text in (
        "split train: CIFAR-FS has 64 train classes, found 63",
        "val class 'sea': CIFAR-FS's classes have 3 images, found 2",
        "man_s_000001.png: the image is corrupt",
    ):
        assert text in found.summary()
    assert len(found.found) == 4 and sum(spec.images_per_class) == 3 * 99 - 2
    lists = source / "cifar100/splits/bertinetto/val.txt"
    lists.write_text(lists.read_text().replace("sea\n", "bee\n"))
    with pytest.raises(ValueError, match=r"val\.txt must name the val .*differs in: bee, sea\."):
        cifar_fs.convert(source, tmp_path / "out2")


def test_forms_are_not_guessed_and_wrong_content_is_named(tmp_path):
    source = write_pickles(tmp_path / "in", "FC100", fc100.DATA_SET)
    write_official(tmp_path / "official")
    for part in ("train", "test", "meta"):
        shutil.copy(tmp_path / "official" / part, source)
    with pytest.raises(ValueError, match="FC100 in several forms: say --form=pickles or cifar100"):
        fc100.convert(source, tmp_path / "out")
    fc100.convert(source, tmp_path / "out", form="cifar100")
    (source / "FC100_val.pickle").unlink()
    with pytest.raises(FileNotFoundError, match="file of split val is missing: FC100_val.pickle"):
        fc100.convert(source, tmp_path / "out2", form="pickles")
    (source / "test").write_bytes(pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}))
    with pytest.raises(ValueError, match=r"in/test: .fine_labels. must be a list of whole numbers"):
        fc100.convert(source, tmp_path / "out2", form="cifar100")
    shutil.rmtree(source)
    write_pickles(source, "CIFAR_FS", cifar_fs.DATA_SET)
    with pytest.raises(ValueError, match="holds no FC100 in a known form .pickles: FC100_{train"):
        fc100.convert(source, tmp_path / "out2")
