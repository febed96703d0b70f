# SPDX-License-Identifier: Apache-2.0
"""For TensorFlow Datasets: the builder gives our records and glyphs, and they come back as they were."""

import pickle

import pytest
import tensorflow_datasets as tfds

from tests.converters import raw
from tf_lwdgh.converters import (
    builder_sources,
    folders,
    glyphs,
    tfds_builder,
    tfds_features,
    tfds_sets,
)  # fmt: skip
from tf_lwdgh.converters.commands import build_tfds
from tf_lwdgh.data import store

SKIP = {"image": tfds.decode.SkipDecoding()}


def write_records(folder, *, superclasses=True, names=("b/1", "b 2", "ä", "d")):
    """Four classes of 3 PNG, 2 JPEG, 4 PNG and 2 PNG; the first two in one superclass."""
    jpegs = [raw.save(folder.parent / f"{i}.jpg", raw.pixels(i)) for i in range(2)]
    pngs = [[raw.pixels(10 * c + i) for i in range(n)] for c, n in ((1, 3), (2, 4), (3, 2))]
    a, b, c, d = names
    classes = {"train": [(a, pngs[0]), (b, jpegs)], "val": [(c, pngs[1])], "test": [(d, pngs[2])]}
    above = dict(zip(names, ("x", "x", "y", "z"), strict=True)) if superclasses else None
    return store.write_dataset(
        folder, folder.name, classes, image_size=12, converter_version="test-1", split_name="a split",
        superclasses=above,
    )  # fmt: skip


def prepare(name, data_dir, manual_dir=None, **settings):
    builder = tfds.builder(name, data_dir=data_dir, **settings)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
    return builder


def rows(builder, split, decoders=None):
    return list(builder.as_dataset(split=split, decoders=decoders).as_numpy_iterator())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """data/photos, our records, and tfds, where they are prepared."""
    folder = tmp_path_factory.mktemp("builder")
    write_records(folder / "data" / "photos")
    prepare("tf_lwdgh/photos", folder / "tfds", folder / "data")
    return folder


def test_every_image_arrives_unchanged_under_its_class(home):
    builder = tfds.builder("tf_lwdgh/photos", data_dir=home / "tfds")
    expected = raw.records(home / "data" / "photos")
    label = builder.info.features["label"]
    for split, tfds_split in zip(store.SPLITS, ("train", "validation", "test"), strict=True):
        found = {}
        for row in rows(builder, tfds_split, SKIP):
            found.setdefault(label.int2str(row["label"]), []).append(row["image"])
        assert {c: sorted(i) for c, i in found.items()} == {c: sorted(i) for c, i in expected[split].items()}


def test_what_is_prepared_is_loaded_by_its_name(home):
    """As one who has not our code does it, from the files alone."""
    builder = tfds.core.read_only_builder.builder_from_files("tf_lwdgh/photos", data_dir=home / "tfds")
    assert type(builder).__name__ == "ReadOnlyBuilder"
    assert builder.info.features["label"].names == ["b/1", "b 2", "ä", "d"]
    assert builder.info.features["superclass"].names == ["x", "y", "z"]
    assert {s: i.num_examples for s, i in builder.info.splits.items()} == {
        "train": 5, "validation": 4, "test": 2,
    }  # fmt: skip
    assert {r["superclass"] for r in rows(builder, "train")} == {0}
    assert {r["superclass"] for r in rows(builder, "test")} == {2}
    (image, label), *_ = tfds.load("tf_lwdgh/photos", split="test", data_dir=home / "tfds", as_supervised=True)
    assert image.shape == (12, 12, 3) and label == 3


def test_its_metadata_say_where_it_came_from(home):
    spec = store.DatasetSpec.load(home / "data" / "photos")
    metadata = tfds.builder("tf_lwdgh/photos", data_dir=home / "tfds").info.metadata
    assert metadata["content_checksum"] == spec.content_checksum
    assert (metadata["split_name"], metadata["converter_version"]) == ("a split", "test-1")


def test_records_come_back_as_they_were(home, tmp_path):
    spec, _ = tfds_sets.convert(
        "tf_lwdgh/photos", tmp_path / "back", deal=tfds_sets.Deal("own"), name="back",
        tfds_data_dir=home / "tfds", keys=tfds_features.Keys(superclass="superclass"),
    )  # fmt: skip
    there, back = raw.records(home / "data" / "photos"), raw.records(tmp_path / "back")
    for split in store.SPLITS:
        assert {c: sorted(i) for c, i in back[split].items()} == {c: sorted(i) for c, i in there[split].items()}
    named = {c: spec.superclass_names[i] for c, i in zip(spec.class_names, spec.superclasses)}
    assert named == {"b/1": "x", "b 2": "x", "ä": "y", "d": "z"}


def test_without_superclasses_it_is_minus_one(tmp_path):
    write_records(tmp_path / "data" / "cub", superclasses=False)
    builder = prepare("tf_lwdgh/cub", tmp_path / "tfds", tmp_path / "data")
    again = tfds.builder("tf_lwdgh/cub", data_dir=tmp_path / "tfds")
    for one in (builder, again):
        assert {r["superclass"] for r in rows(one, "train")} == {-1}
        assert one.info.features["superclass"].names == []
    with pytest.raises(ValueError, match="--superclass must name a ClassLabel whose classes are known"):
        tfds_sets.convert(
            "tf_lwdgh/cub", tmp_path / "x", deal=tfds_sets.Deal("own"), name="x",
            tfds_data_dir=tmp_path / "tfds", keys=tfds_features.Keys(superclass="superclass"),
        )  # fmt: skip


def write_tree(folder):
    """A tree of images as a user has it: PNG, JPEG and BMP, of colour and grey."""
    for c, (split, name) in enumerate((("train", "a"), ("train", "b"), ("valid", "c"), ("test", "d"))):
        for i, kind in enumerate(("png", "jpg", "bmp")):
            raw.save(folder / split / name / f"{i}.{kind}", raw.pixels(10 * c + i, channels=1 + 2 * (c % 2)))


def test_a_tree_of_images_is_read_as_a_conversion_would_read_it(tmp_path):
    write_tree(tmp_path / "data" / "tree")
    folders.convert(tmp_path / "data" / "tree", tmp_path / "converted", name="tree")
    builder = prepare("tf_lwdgh/tree", tmp_path / "tfds", tmp_path / "data")
    names = builder.info.features["label"].names
    for split, tfds_split in zip(store.SPLITS, ("train", "validation", "test"), strict=True):
        expected, found = raw.records(tmp_path / "converted")[split], {}
        for row in rows(builder, tfds_split, SKIP):
            found.setdefault(names[row["label"]], []).append(row["image"])
        assert set(found) == set(expected)
        for name in found:
            files = {p.read_bytes() for p in (tmp_path / "data" / "tree").rglob(f"{name}/*.[pj]*g")}
            assert files < set(found[name]) and len(found[name]) == 3
            pixels = [sorted(raw.decode(i).tobytes() for i in of[name]) for of in (found, expected)]
            assert pixels[0] == pixels[1]


def test_a_tree_with_a_corrupt_image_is_refused(tmp_path):
    write_tree(tmp_path / "data" / "tree")
    (tmp_path / "data" / "tree" / "test" / "d" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="d/0.png: the image is corrupt"):
        prepare("tf_lwdgh/tree", tmp_path / "tfds", tmp_path / "data")


@pytest.fixture
def few_glyphs(monkeypatch):
    """Three images of two characters a split."""
    monkeypatch.setattr(glyphs, "IMAGES_PER_CLASS", 3)
    few = {s: {n: c[:2] for n, c in list(of.items())[:1]} for s, of in glyphs.CHARACTERS.items()}
    monkeypatch.setattr(glyphs, "CHARACTERS", few)


def test_glyphs_are_drawn_and_need_no_file(few_glyphs, tmp_path):
    loaded, info = tfds.load("tf_lwdgh/glyphs", data_dir=tmp_path / "tfds", with_info=True)
    made = glyphs.make(tmp_path)
    pixels = raw.records(tmp_path / "glyphs")
    assert tuple(info.features["label"].names) == made.class_names
    assert tuple(info.features["superclass"].names) == made.superclass_names
    for split, tfds_split in zip(store.SPLITS, ("train", "validation", "test"), strict=True):
        expected = {c: {raw.decode(i).tobytes() for i in images} for c, images in pixels[split].items()}
        found = {}
        for row in loaded[tfds_split].as_numpy_iterator():
            found.setdefault(made.class_names[row["label"]], set()).add(row["image"].tobytes())
            assert row["superclass"] == made.superclasses[row["label"]]
        assert found == expected


def test_the_command_builds_by_name_or_json(home, tmp_path):
    where = [f"--manual_dir={home / 'data'}", f"--data_dir={tmp_path}"]
    build_tfds.main(["tf_lwdgh/photos", *where])
    assert tfds.builder("tf_lwdgh/photos", data_dir=tmp_path).is_prepared()
    write_records(home / "data" / "grey")
    build_tfds.main(["tf_lwdgh", '--config={"name": "grey", "channels": 1}', *where])
    row = rows(tfds.core.read_only_builder.builder_from_files("tf_lwdgh/grey", data_dir=tmp_path), "test")[0]
    assert row["image"].shape == (12, 12, 1)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["tf_lwdgh/omniglot"], "tf_lwdgh/omniglot needs the folder"),
        (["tf_lwdgh", '--config={"name": "photos", "channels": 2}'], "Config.channels must be 1 or 3"),
        (["no_such_set"], "no_such_set not found"),
    ],
)  # fmt: skip
def test_the_command_says_what_is_wrong(home, tmp_path, capsys, flags, said):
    with pytest.raises(SystemExit) as stopped:
        build_tfds.main([*flags, f"--manual_dir={home / 'data'}", f"--data_dir={tmp_path}"])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert said in message and "Traceback" not in message


@pytest.mark.parametrize(
    "names", [("a", " b", "c", "d"), ("a", "b\nb", "c", "d"), ("a", "", "c", "d"), ("a", "a", "c", "d")]
)
def test_names_that_tfds_cannot_keep_are_refused(tmp_path, names):
    write_records(tmp_path / "data" / "odd", superclasses=False, names=names)
    with pytest.raises(ValueError, match="keeps class names one a line"):
        prepare("tf_lwdgh/odd", tmp_path / "tfds", tmp_path / "data")


def test_a_damaged_record_is_named(tmp_path):
    write_records(tmp_path / "data" / "photos")
    file = tmp_path / "data" / "photos" / "2.tfrecords"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="2.tfrecords .class 2, 'ä'. is damaged"):
        prepare("tf_lwdgh/photos", tmp_path / "tfds", tmp_path / "data")
    assert not tfds.builder("tf_lwdgh/photos", data_dir=tmp_path / "tfds").is_prepared()


def test_without_apache_beam_it_says_so_before_anything_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_builder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="beam=True needs the package apache-beam"):
        tfds.builder("tf_lwdgh/glyphs/beam=True", data_dir=tmp_path)


def test_what_workers_are_sent_can_be_pickled(home, few_glyphs):
    write_tree(home / "data" / "tree")
    found = [builder_sources.find(home / "data", name) for name in ("photos", "tree")]
    assert [type(source).__name__ for source in found] == ["Records", "Tree"]
    for source in (*found, builder_sources.Drawn()):
        copy = pickle.loads(pickle.dumps(source))
        assert copy.spec == source.spec
        assert list(copy.images(1)) == list(source.images(1)) != []


def test_apache_beam_gives_the_same_as_one_process(home, tmp_path):
    beam = pytest.importorskip("apache_beam", reason="apache-beam is not installed (docs/datasets.md)")
    write_tree(home / "data" / "leaves")
    prepare("tf_lwdgh/leaves", home / "tfds", home / "data")
    config = tfds.download.DownloadConfig(
        manual_dir=home / "data", beam_runner="DirectRunner",
        beam_options=beam.options.pipeline_options.PipelineOptions(flags=[]),
    )  # fmt: skip
    for name in ("photos", "leaves"):
        builder = tfds.builder(f"tf_lwdgh/{name}/beam=True", data_dir=tmp_path)
        builder.download_and_prepare(download_config=config)
        alone = tfds.builder(f"tf_lwdgh/{name}", data_dir=home / "tfds")
        for split in ("train", "validation", "test"):
            assert rows(builder, split, SKIP) == rows(alone, split, SKIP) != []  # in this very order
