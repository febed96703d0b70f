# SPDX-License-Identifier: Apache-2.0
"""tiered-ImageNet: the authors' PNG pickles, the .npz and ILSVRC's files give the same right records."""

import io
import itertools
import os
import pickle
import re
import tarfile
import weakref

import numpy as np
import pytest
from PIL import Image

from tests.converters import raw
from tf_lwdgh.converters import (
    npz,
    pictures,
    problems,
    safe_pickle,
    tiered_arrays,
    tiered_imagenet,
    tiered_labels,
    tiered_split,
)
from tf_lwdgh.data import store

# Names as the authors' files have them; ImageNet has two classes called crane, a bird and a machine.
DATA = {
    "train": {"aquatic bird": ["crane", "spoonbill"], "hound": ["basset, basset hound", "beagle"]},
    "val": {"machine": ["crane"]},
    "test": {"insect": ["bee", "ant, emmet, pismire"], "solid": ["lemon"]},
}
IMAGES = 3


def synset(split: str, name: str) -> str:
    return f"n{abs(hash_of(split, name)):08d}"


def hash_of(*parts: str) -> int:
    return sum(ord(c) * (i + 1) for i, c in enumerate("/".join(parts)))


def classes(split: str):
    """(category, name, images [IMAGES, 12, 12, 3] RGB) of a split."""
    for category, names in DATA[split].items():
        for name in names:
            seed = hash_of(split, name)
            yield category, name, np.stack([raw.pixels(seed + i) for i in range(IMAGES)])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    counts = {s: sum(map(len, DATA[s].values())) for s in DATA}
    monkeypatch.setattr(tiered_imagenet, "CLASSES", counts)
    monkeypatch.setattr(tiered_imagenet, "CATEGORIES", {s: len(DATA[s]) for s in DATA})
    monkeypatch.setattr(tiered_imagenet, "IMAGES", {s: IMAGES * n for s, n in counts.items()})
    synsets = {
        s: tuple(tiered_split.Synset(synset(s, name), category) for category, name, _ in classes(s)) for s in DATA
    }
    monkeypatch.setattr(tiered_imagenet, "SYNSETS", synsets)


def images_and_labels(split: str, *, text=str):
    """All images in the order of a shuffled listing of folders, and the authors' four lists."""
    found = list(classes(split))
    order = np.random.default_rng(1).permutation(len(found))
    categories = list(dict.fromkeys(found[i][0] for i in order))
    content = {
        "label_specific": np.repeat(np.arange(len(found), dtype=np.int32), IMAGES),
        "label_general": np.repeat([categories.index(found[i][0]) for i in order], IMAGES),
        "label_specific_str": [text(found[i][1]) for i in order],
        "label_general_str": [text(c) for c in categories],
    }
    return np.concatenate([found[i][2] for i in order]), content


def png(rgb: np.ndarray) -> bytes:
    """What cv2.imencode('.png', bgr) writes: a PNG file is RGB."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "png")
    return file.getvalue()


def write_png(root, *, protocol=2, column=True, key=str):
    """Older OpenCVs give the bytes as a column, newer ones as a row."""
    root.mkdir(exist_ok=True)
    for split in DATA:
        images, content = images_and_labels(split, text=key)
        arrays = [np.frombuffer(png(image), np.uint8) for image in images]
        arrays = [a[:, None].copy() if column else a.copy() for a in arrays]
        (root / f"{split}_images_png.pkl").write_bytes(pickle.dumps(arrays, protocol))
        labels = {key(k): v for k, v in content.items()}
        (root / f"{split}_labels.pkl").write_bytes(pickle.dumps(labels, protocol))
    return root


def write_npz(root, *, save=np.savez, labels_alone=True):
    """As OpenCV read them: blue, green, red."""
    root.mkdir(exist_ok=True)
    first = 0
    for split in DATA:
        images, content = images_and_labels(split)
        save(root / f"{split}_images.npz", images=images[..., ::-1])
        if labels_alone:
            content = {"labels": (first + content["label_specific"]).tolist()}
            first += sum(map(len, DATA[split].values()))
        (root / f"{split}_labels.pkl").write_bytes(pickle.dumps(content, 2))
    return root


def write_ilsvrc(root, *, archived=False, size=24):
    for split in DATA:
        for _, name, images in classes(split):
            wnid = synset(split, name)
            for i, image in enumerate(images):
                fine = image.repeat(size // 12, 0).repeat(size // 12, 1)
                raw.save(root / wnid / f"{wnid}_{i}.JPEG", fine, format="PNG")
            if archived:
                with tarfile.open(root / f"{wnid}.tar", "w") as file:
                    for path in sorted((root / wnid).iterdir(), reverse=True):
                        file.add(path, arcname=path.name)
                        path.unlink()
                (root / wnid).rmdir()
    return root


def convert(source, out, **options):
    return tiered_imagenet.convert(source, out, image_size=12, **options)


def check(folder, names, *, superclasses=True):
    """Pixels, names and categories against DATA; `names` gives a class's name."""
    spec, records = store.DatasetSpec.load(folder), raw.records(folder)
    for split in DATA:
        expected = {names(split, name): images for _, name, images in classes(split)}
        assert set(records[split]) == set(expected)
        for name, images in expected.items():
            got = np.stack([raw.decode(e) for e in records[split][name]])
            np.testing.assert_array_equal(got, images)
    if superclasses:
        owners = {names(s, name): c for s in DATA for c, name, _ in classes(s)}
        found = [spec.superclass_names[i] for i in spec.superclasses]
        assert found == [owners[c] for c in spec.class_names]
        assert '"BiLevelDatasetSpecification"' in (folder / store.SPEC_FILE).read_text()
    else:
        assert spec.superclasses == () == spec.superclass_names
    assert (spec.split_name, spec.image_size, spec.encoding) == ("ren", 12, "png")


def worded(split: str, name: str) -> str:
    """The two cranes are told apart by split and label."""
    _, content = images_and_labels(split)
    label = content["label_specific_str"].index(name)
    return f"crane ({split} {label})" if name == "crane" else name


@pytest.mark.parametrize(
    "options",
    [{}, {"protocol": 5, "column": False}, {"key": str.encode, "protocol": 4}],
    ids=["python 2", "new", "bytes"],
)
def test_png_pickles_keep_their_bytes_and_their_colours(tmp_path, options):
    source = write_png(tmp_path / "in", **options)
    before = raw.files(source)
    convert(source, tmp_path / "data" / "out")
    check(tmp_path / "data" / "out", worded)
    bee = raw.records(tmp_path / "data" / "out")["test"]["bee"]
    assert bee[1] == png(raw.pixels(hash_of("test", "bee") + 1))
    assert raw.files(source) == before
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["out"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_turned_from_bgr(tmp_path, save):
    source = write_npz(tmp_path / "in", save=save)
    convert(source, tmp_path / "data" / "out")
    records = raw.records(tmp_path / "data" / "out")
    assert list(records["val"]) == ["val-004"]
    assert list(records["train"]) == [f"train-{i:03d}" for i in range(4)]
    firsts = {"train": 0, "val": 4, "test": 5}

    def labelled(split, name):
        _, content = images_and_labels(split)
        return f"{split}-{firsts[split] + content['label_specific_str'].index(name):03d}"

    check(tmp_path / "data" / "out", labelled, superclasses=False)
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["out"]


def test_npz_with_the_authors_labels_has_superclasses_and_rgb_can_be_said(tmp_path):
    source = write_npz(tmp_path / "in", labels_alone=False)
    convert(source, tmp_path / "bgr")
    check(tmp_path / "bgr", worded)
    convert(source, tmp_path / "rgb", channels="rgb")
    bee = raw.decode(raw.records(tmp_path / "rgb")["test"]["bee"][0])
    np.testing.assert_array_equal(bee, raw.pixels(hash_of("test", "bee"))[..., ::-1])
    with pytest.raises(ValueError, match="--channels must be one of bgr, rgb. Received: 'grb'"):
        convert(source, tmp_path / "no", channels="grb")


@pytest.mark.parametrize("archived", [False, True], ids=["folders", "archives"])
@pytest.mark.parametrize("home", ["", "train"])
def test_ilsvrc_files_are_resized_by_area_and_named_by_synset(tmp_path, archived, home):
    source = tmp_path / "in"
    write_ilsvrc(source / home, archived=archived)
    before = raw.files(source)
    convert(source, tmp_path / "out")
    check(tmp_path / "out", synset)
    assert raw.files(source) == before
    spec = store.DatasetSpec.load(tmp_path / "out")
    assert spec.superclass_names == tuple(c for s in DATA for c in DATA[s])


def test_the_published_split_is_whole():
    sizes = [len(tiered_split.SYNSETS[s]) for s in store.SPLITS]
    categories = [list(dict.fromkeys(c for _, c in tiered_split.SYNSETS[s])) for s in store.SPLITS]
    assert sizes == [351, 97, 160] and list(map(len, categories)) == [20, 6, 8]
    wnids = [wnid for s in store.SPLITS for wnid, _ in tiered_split.SYNSETS[s]]
    assert len(set(wnids)) == 608 and all(re.fullmatch(r"n\d{8}", w) for w in wnids)
    assert len(set(itertools.chain(*categories))) == 34
    known = {  # brambling, beagle, banjo; golden retriever; lemon; jellyfish is in none
        "n01530575": ("train", "passerine"), "n02088364": ("train", "hound"),
        "n02787622": ("train", "musical instrument"), "n02099601": ("val", "sporting dog"),
        "n07749582": ("test", "solid"),
    }  # fmt: skip
    homes = {w: (s, c) for s in store.SPLITS for w, c in tiered_split.SYNSETS[s]}
    assert known.items() <= homes.items() and "n01910747" not in homes
    # Between 10 and 30 classes a category (Ren et al., section 4.1.3).
    counts = [sum(c == category for _, c in homes.values()) for category in set(sum(categories, []))]
    assert min(counts) == 10 and max(counts) == 30


def test_the_published_counts_are_required(tmp_path, monkeypatch):
    source = write_png(tmp_path / "in")
    monkeypatch.setattr(tiered_imagenet, "IMAGES", {"train": 448_695, "val": 3, "test": 9})
    with pytest.raises(ValueError, match="split train: tiered-ImageNet has 448,695 train images, found 12"):
        convert(source, tmp_path / "out")
    monkeypatch.setattr(tiered_imagenet, "CATEGORIES", {"train": 2, "val": 1, "test": 8})
    spec, found = convert(source, tmp_path / "out", skip_bad=True)
    assert "8 test categories, found 2" in found.summary() and len(found.found) == 2
    assert sum(spec.images_per_class) == 24


def test_forms_are_not_guessed(tmp_path):
    source = write_npz(write_png(tmp_path / "in"), labels_alone=False)
    with pytest.raises(ValueError, match="tiered-ImageNet in several forms: say --form=png or npz"):
        convert(source, tmp_path / "out")
    convert(source, tmp_path / "out", form="npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no tiered-ImageNet in a known form .png: {train"):
        convert(tmp_path / "empty", tmp_path / "out2")


def edit(path, change):
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(change(content)))


@pytest.mark.parametrize(
    "name, change, text",
    [
        ("val_labels", lambda c: [c], "must hold a dictionary. Received: list"),
        ("val_labels", lambda c: {"a": 1}, "key 'label_specific' or 'labels'. Received the keys: a"),
        ("val_labels", lambda c: c | {"label_specific": [0.5]}, "whole numbers from 0. .* \\[0.5\\]"),
        ("val_labels", lambda c: c | {"label_specific": [2] * 3}, "has 1 names. Received the label 2"),
        ("val_labels", lambda c: c | {"label_general": [0]}, "must have the 3 labels of .* 1"),
        ("train_labels", lambda c: c | {"label_general": [0, 1] * 6}, "one category.*labels .0, 1"),
        ("val_images_png", lambda c: c[:2], "an image for each of the 3 labels. Received: 2"),
        ("val_images_png", lambda c: dict(enumerate(c)), "must hold a list"),
    ],
)
def test_pickles_with_wrong_content_are_named(tmp_path, name, change, text):
    source = write_png(tmp_path / "in", column=False)
    edit(source / f"{name}.pkl", change)
    with pytest.raises(ValueError, match=rf"{name}\.pkl.*{text}"):
        convert(source, tmp_path / "data" / "out")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_corrupt_and_missing_files_are_named_or_counted(tmp_path):
    source = write_png(tmp_path / "in")
    edit(source / "test_images_png.pkl", lambda c: [c[0][:-20], b"", *c[2:-1], 7])
    with pytest.raises(ValueError, match=r"test_images_png\.pkl, image \d+: the image is corrupt"):
        convert(source, tmp_path / "out")
    spec, found = convert(source, tmp_path / "out", skip_bad=True)
    assert len(found.found) == 3 and sum(spec.images_per_class) == 24 - 3
    assert "image 8: it must be the bytes of a PNG file. Received: int" in found.summary()
    (source / "val_labels.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(safe_pickle.UnsafePickle, match=r"val_labels\.pkl is refused"):
        convert(source, tmp_path / "out2")
    (source / "val_labels.pkl").unlink()
    with pytest.raises(FileNotFoundError, match=r"in/val_labels\.pkl is missing"):
        convert(source, tmp_path / "out2")
    whole = write_png(tmp_path / "whole")
    (whole / "test_images_png.pkl").unlink()
    with pytest.raises(FileNotFoundError, match=r"whole/test_images_png\.pkl is missing"):
        convert(whole, tmp_path / "out2")


def test_damaged_and_wrong_npz_are_named(tmp_path):
    source = write_npz(tmp_path / "in")
    path = source / "test_images.npz"
    good = path.read_bytes()
    cases = {
        "has no array 'images'. Received the arrays: pictures": {"pictures": np.zeros(3)},
        r"uint8 \[N, H, W, 3\]. Received: float64 \[2, 3\]": {"images": np.zeros((2, 3))},
        "cannot be read .an array of Python objects": {"images": np.array([None])},
    }
    for text, arrays in cases.items():
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=rf"test_images\.npz.*{text}"):
            convert(source, tmp_path / "data" / "out")
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"test_images\.npz cannot be unpacked"):
        convert(source, tmp_path / "data" / "out")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("order", "CF")
def test_a_stored_array_is_mapped_and_not_read(tmp_path, order):
    expected = {"a": np.arange(6), "images": np.asarray(raw.pixels(0), order=order)}
    np.savez(tmp_path / "x.npz", **expected)
    with open(tmp_path / "spare", "w+b") as spare:
        got = npz.member(tmp_path / "x.npz", "images", spare, beside=tmp_path)
    assert isinstance(got, np.memmap) and str(got.filename).endswith("x.npz")
    np.testing.assert_array_equal(got, expected["images"])


def test_a_split_is_opened_once_and_let_go_after_its_last_class(tmp_path, monkeypatch):
    source, opened, open_pickle = write_png(tmp_path / "in"), [], safe_pickle.load

    class Held(list):
        """A list that can be watched."""

    def load(path):
        if "images" not in path.name:
            return open_pickle(path)
        content = Held(open_pickle(path))
        opened.append((path.name[:4], weakref.ref(content)))
        return content

    monkeypatch.setattr(safe_pickle, "load", load)
    labels = tiered_labels.read(source)
    images = tiered_arrays.read_images(
        source, "png", labels, problems.Problems(), image_size=12, channels="bgr", beside=tmp_path
    )
    assert opened == []
    *first, (_, last) = images["train"]
    assert all(len(list(pictured)) == IMAGES for _, pictured in first)
    assert [name for name, _ in opened] == ["trai"] and opened[0][1]() is not None
    assert len(list(last)) == IMAGES and opened[0][1]() is None


def test_ilsvrc_damage_is_named_or_counted(tmp_path):
    source = write_ilsvrc(tmp_path / "in", archived=True)
    ant, bee = (synset("test", name) for name in ("ant, emmet, pismire", "bee"))
    (source / f"{ant}.tar").unlink()
    with pytest.raises(ValueError, match=f"{ant}: the folder of this test class, or its .tar, is mis"):
        convert(source, tmp_path / "out")
    spec, found = convert(source, tmp_path / "out", skip_bad=True)
    assert ant not in spec.class_names and spec.classes_per_split["test"] == 2
    assert "test classes, found 2" in found.summary() and "test images, found 6" in found.summary()
    write_ilsvrc(source, archived=True)
    damaged = (source / f"{bee}.tar").read_bytes()
    (source / f"{bee}.tar").write_bytes(damaged.replace(b"IDAT", b"IDOT", 1))
    with pytest.raises(ValueError, match=rf"{bee}\.tar, {bee}_2\.JPEG: the image is corrupt"):
        convert(source, tmp_path / "out2")
    (source / f"{bee}.tar").write_bytes(damaged[:700])
    with pytest.raises(ValueError, match=rf"{bee}\.tar cannot be unpacked"):
        convert(source, tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_a_killed_conversion_leaves_nothing_that_looks_whole_and_starts_again(tmp_path, monkeypatch):
    source, data = write_png(tmp_path / "in"), tmp_path / "data"
    child = os.fork()
    if not child:
        count, read = itertools.count(), pictures.read_image
        monkeypatch.setattr(pictures, "read_image", lambda *a, **k: os._exit(9) if next(count) > 14 else read(*a, **k))
        convert(source, data / "tiered_imagenet")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (left,) = data.iterdir()
    assert left.name.startswith(".tiered_imagenet.partial-")
    with pytest.raises(FileNotFoundError, match="convert_tiered_imagenet.py --help"):
        store.open_dataset(data, "tiered_imagenet")
    convert(source, data / "tiered_imagenet")
    check(data / "tiered_imagenet", worded)
    assert [p.name for p in data.iterdir()] == ["tiered_imagenet"]
