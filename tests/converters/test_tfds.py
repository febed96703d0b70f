# SPDX-License-Identifier: Apache-2.0
"""From TensorFlow Datasets: any set by name, its classes dealt to splits, its encoded images as they are."""

import itertools
import pathlib
import re
import shlex
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.converters import raw, tfds_tiny
from tf_lwdgh.converters import class_spool, folders, tfds_features, tfds_sets, tfds_source
from tf_lwdgh.converters.commands import tfds as command
from tf_lwdgh.data import store

HALVES = tfds_sets.Deal("classes", folders.SplitChoice((0.5, 0.25, 0.25)))


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """Where TFDS has prepared the tiny set."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds.builder("tiny_zoo", data_dir=folder).download_and_prepare()
    return folder


def convert(tfds_dir, out, deal=HALVES, **settings):
    return tfds_sets.convert("tiny_zoo", out, deal=deal, name="zoo", tfds_data_dir=tfds_dir, **settings)


def lists(folder, **named):
    folder.mkdir()
    for split in store.SPLITS:
        (folder / f"{split}.txt").write_text("\n".join(named.get(split, ())))
    return folders.SplitChoice(lists=folder)


def merged(folder):
    """{class: its images} of all splits."""
    return {c: images for of_split in raw.records(folder).values() for c, images in of_split.items()}


def test_encoded_images_pass_unchanged_and_the_sets_splits_are_pooled(tfds_dir, tmp_path):
    spec, problems = convert(tfds_dir, tmp_path / "out")
    assert {c: set(i) for c, i in merged(tmp_path / "out").items()} == tfds_tiny.pictures()
    assert problems.found == [] and set(spec.images_per_class) == {7}
    assert dict(spec.classes_per_split) == {"train": 3, "val": 1, "test": 2}
    assert (spec.encoding, spec.image_size, spec.superclasses) == ("mixed", None, ())
    assert spec.converter_version == "tfds-1 tiny_zoo/1.0.0"
    assert spec.split_name == "classes by fractions 0.5,0.25,0.25 seed 0"


def test_the_same_set_gives_the_same_records(tfds_dir, tmp_path):
    one, _ = convert(tfds_dir, tmp_path / "one")
    two, _ = convert(tfds_dir, tmp_path / "two")
    assert one == two and one.source_checksum.startswith("sha256:")
    fewer, _ = convert(tfds_dir, tmp_path / "fewer", tfds_splits=("train",))
    assert fewer.source_checksum != one.source_checksum


def test_fractions_pick_as_for_folders(tfds_dir, tmp_path):
    convert(tfds_dir, tmp_path / "out")
    found = {s: list(classes) for s, classes in raw.records(tmp_path / "out").items()}
    assert found == folders.by_fractions(sorted(tfds_tiny.CLASSES), HALVES.choice)


def test_only_the_splits_that_are_asked_for_are_read(tfds_dir, tmp_path):
    convert(tfds_dir, tmp_path / "out", tfds_splits=("test",))
    assert {c: set(i) for c, i in merged(tmp_path / "out").items()} == tfds_tiny.pictures(("test",))


def test_images_are_resized_when_asked(tfds_dir, tmp_path):
    spec, _ = convert(tfds_dir, tmp_path / "out", image_size=6)
    assert (spec.encoding, spec.image_size) == ("png", 6)
    shapes = {raw.decode(i).shape for images in merged(tmp_path / "out").values() for i in images}
    assert shapes == {(6, 6, 3)}


def test_a_size_that_all_images_share_is_found(tfds_dir, tmp_path):
    choice = lists(tmp_path / "lists", train=["cat"], val=["eel"], test=["dog"])
    spec, _ = convert(tfds_dir, tmp_path / "out", tfds_sets.Deal("classes", choice))
    assert (spec.encoding, spec.image_size) == ("jpeg", 12)
    assert spec.class_names == ("cat", "eel", "dog")  # those that the lists name


def test_superclasses_are_dealt_whole(tfds_dir, tmp_path):
    choice = lists(tmp_path / "lists", train=["mammal"], val=["fish"], test=["insect"])
    deal = tfds_sets.Deal("superclasses", choice)
    keys = tfds_features.Keys(superclass="order")
    spec, _ = convert(tfds_dir, tmp_path / "out", deal, keys=keys)
    assert spec.class_names == ("cat", "dog", "fox", "eel", "ant", "bee")
    assert [spec.superclass_names[i] for i in spec.superclasses] == [
        "mammal", "mammal", "mammal", "fish", "insect", "insect",
    ]  # fmt: skip
    assert dict(spec.classes_per_split) == {"train": 3, "val": 1, "test": 2}
    assert '"BiLevelDatasetSpecification"' in (tmp_path / "out" / store.SPEC_FILE).read_text()


def test_classes_may_have_superclasses_that_span_splits(tfds_dir, tmp_path):
    keys = tfds_features.Keys(superclass="order")
    spec, _ = convert(tfds_dir, tmp_path / "out", keys=keys)
    named = {c: spec.superclass_names[s] for c, s in zip(spec.class_names, spec.superclasses)}
    assert named == {c: tfds_tiny.ORDERS[o] for c, o in tfds_tiny.ORDER_OF.items()}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keys": {"superclass": "stripe"}}, " in no and yes."),
        ({"keys": {"superclass": "name"}}, "--superclass must name a ClassLabel"),
        ({"keys": {"superclass": "genus"}}, "--superclass must name a feature of tiny_zoo/1.0.0: kind, mask,"),
        ({"keys": {"image": "kind"}}, "--image_key must name an Image of uint8 with 1 or 3 channels"),
        ({"keys": {"label": "picture"}}, "--label_key must name a ClassLabel"),
        ({"tfds_splits": ("train", "small")}, "train, test, unlabelled. Received: train+small"),
        ({"tfds_splits": ("unlabelled",)}, "has no class (label -1). Leave such a split out"),
        ({"deal": tfds_sets.Deal("own")}, "In several: ant, bee, cat, dog, eel, fox"),
        ({"deal": tfds_sets.Deal("own"), "tfds_splits": ("train",)}, "no other; see --tfds_splits"),
        ({"deal": tfds_sets.Deal("superclasses", HALVES.choice)}, "needs --superclass"),
        ({"min_images": 8}, "a class needs at least 8 images, found 7"),
        ({"image_size": 0}, "--image_size must be at least 1. Received: 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_left(tfds_dir, tmp_path, settings, said):
    if "keys" in settings:
        settings = {**settings, "keys": tfds_features.Keys(**settings["keys"])}
    with pytest.raises(ValueError) as error:
        convert(tfds_dir, tmp_path / "out", **settings)
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_only_a_list_knows_is_a_problem(tfds_dir, tmp_path):
    choice = lists(tmp_path / "lists", train=["cat", "yak"], val=["eel"], test=["dog"])
    deal = tfds_sets.Deal("classes", choice)
    with pytest.raises(ValueError, match="train.txt: the set has no images of 'yak'"):
        convert(tfds_dir, tmp_path / "out", deal)
    spec, problems = convert(tfds_dir, tmp_path / "out", deal, skip_bad=True)
    assert len(problems.found) == 1 and spec.class_names == ("cat", "eel", "dog")


def test_a_corrupt_image_is_named_or_skipped(tfds_dir, tmp_path, monkeypatch):
    def damaged(*args):
        for example in tfds_source_read(*args):
            cut = example.label == 3 and example.split == "test"
            yield example._replace(image=example.image[:40]) if cut else example

    tfds_source_read = tfds_source.read
    monkeypatch.setattr(tfds_source, "read", damaged)
    with pytest.raises(ValueError, match="of class 'dog': the image is corrupt"):
        convert(tfds_dir, tmp_path / "out")
    spec, problems = convert(tfds_dir, tmp_path / "out", skip_bad=True)
    assert len(problems.found) == 2
    assert spec.images_per_class[spec.class_names.index("dog")] == 5


def test_a_damaged_file_of_the_set_is_named(tmp_path):
    tfds.builder("tiny_zoo", data_dir=tmp_path / "tfds").download_and_prepare()
    (file,) = (tmp_path / "tfds").rglob("*-test.tfrecord*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(ValueError, match="split 'test' of tiny_zoo/1.0.0 cannot be read"):
        convert(tmp_path / "tfds", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_fetched_unless_asked(tmp_path):
    with pytest.raises(FileNotFoundError, match="tiny_zoo is not prepared in .*--download"):
        convert(tmp_path / "tfds", tmp_path / "out")
    assert not (tmp_path / "tfds").exists()
    convert(tmp_path / "tfds", tmp_path / "out", download=True)  # of what needs no network
    assert {c: set(i) for c, i in merged(tmp_path / "out").items()} == tfds_tiny.pictures()


def test_an_unknown_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--dataset must be a set that TFDS knows. Received: 'zoo_of"):
        tfds_source.prepared("zoo_of_mars", tmp_path, download=True)


@pytest.mark.parametrize(
    ("image", "label", "supervised", "said"),
    [
        (tfds.features.Image(shape=(None, None, 4)), None, ("x", "y"), "with 1 or 3 channels in any"),
        (tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16), None, ("x", "y"), "an Image of uint8"),
        (tfds.features.Tensor(shape=(8, 8, 13), dtype=np.float32), None, ("x", "y"), "Tensor(shape"),
        (tfds.features.Video(shape=(None, 8, 8, 3)), None, ("x", "y"), "Received: 'x', Video"),
        (tfds.features.Text(), None, ("x", "y"), "Received: 'x', Text"),
        (None, tfds.features.Scalar(np.int64), ("x", "y"), "--label_key must name a ClassLabel"),
        (None, tfds.features.ClassLabel(), ("x", "y"), "whose classes are known"),
        (None, None, None, "which feature is the image: name it with --image_key"),
        (None, None, ("x", {"y": "y"}), "which feature is the label: name it with --label_key"),
        (None, None, ("x", "z"), "--label_key must name a feature of any/1.0.0: x, y. Received: 'z'"),
    ],
)  # fmt: skip
def test_sets_without_an_image_and_its_class_are_refused(image, label, supervised, said):
    features = tfds.features.FeaturesDict(
        {
            "x": image or tfds.features.Image(shape=(8, 8, 3)),
            "y": label or tfds.features.ClassLabel(num_classes=2),
        }
    )
    info = types.SimpleNamespace(full_name="any/1.0.0", features=features, supervised_keys=supervised)
    with pytest.raises(ValueError) as error:
        tfds_features.find(info, tfds_features.Keys())
    assert said in str(error.value)


def test_keys_that_are_named_come_before_the_supervised_ones(tfds_dir):
    info = tfds_source.prepared("tiny_zoo", tfds_dir, download=False).info
    found = tfds_features.find(info, tfds_features.Keys(image="mask", label="order"))
    assert found.keys[:2] == ("mask", "order") and found.classes == tfds_tiny.ORDERS
    assert found.image_shape == (None, None, 1)


@pytest.mark.parametrize(
    ("unit", "fractions", "said"),
    [
        ("classes", None, "--split=classes needs one of --fractions and --lists"),
        ("superclasses", None, "--split=superclasses needs one of"),
        ("own", (0.5, 0.25, 0.25), "--split=own excludes --fractions and --lists"),
        ("theirs", None, "--split must be one of classes, superclasses, own. Received: 'theirs'"),
    ],
)
def test_a_split_is_never_guessed(unit, fractions, said):
    with pytest.raises(ValueError, match=said):
        tfds_sets.Deal(unit, folders.SplitChoice(fractions))


def test_the_command_makes_a_stand_in_of_a_set_that_cannot_be_had(tmp_path, capsys):
    flags = ["--dataset=cifar100", "--split=superclasses", "--superclass=coarse_label",
             "--fractions=0.6,0.2,0.2", "--stand_in=2", f"--data_dir={tmp_path}"]  # fmt: skip
    command.main(flags)
    said = capsys.readouterr().out
    assert "train 60 classes / 120 images, val 20 classes / 40 images, test 20 classes" in said
    spec = store.DatasetSpec.load(tmp_path / "cifar100_stand_in")
    assert spec.converter_version.startswith("tfds-1 stand-in cifar100/")
    assert (spec.image_size, spec.encoding, len(spec.superclass_names)) == (32, "png", 20)
    images = merged(tmp_path / "cifar100_stand_in")
    one, two = (raw.decode(i).astype(float) for i in images["7"])
    other = raw.decode(images["8"][0]).astype(float)
    assert one.shape == (32, 32, 3)
    assert 0 < np.abs(one - two).mean() < np.abs(one - other).mean()  # a class is a pattern
    command.main([*flags, "--name=again"])
    again = store.DatasetSpec.load(tmp_path / "again")
    assert again.content_checksum == spec.content_checksum


def test_the_command_says_what_to_do_where_the_set_is_not_there(tmp_path, capsys):
    flags = ["--dataset=cifar100", "--split=classes", "--fractions=0.6,0.2,0.2",
             f"--data_dir={tmp_path}", f"--tfds_data_dir={tmp_path / 'tfds'}"]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        command.main(flags)
    assert stopped.value.code == 2
    assert "cifar100 is not prepared in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def documented():
    """The flags of each conversion of a set of TFDS's own that docs/datasets.md shows."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "datasets.md"
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = (shlex.split(line) for line in lines)
    return [c[2:] for c in commands if c[:2] == ["python", "tools/convert_tfds.py"]]


@pytest.mark.parametrize("flags", documented(), ids=" ".join)
def test_the_documented_conversions_work_on_stand_ins(flags, tmp_path, capsys, monkeypatch):
    generate = tfds_source.generate  # a hundred classes are enough of Omniglot's 1,623
    monkeypatch.setattr(tfds_source, "generate", lambda *args: itertools.islice(generate(*args), 100))
    command.main([*flags, "--stand_in=1", "--min_images=1", "--image_size=8", f"--data_dir={tmp_path}"])
    assert "nothing was skipped" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    spec = store.DatasetSpec.load(folder)
    assert all(spec.classes_per_split.values()) and spec.image_size == 8


@pytest.mark.parametrize("settings", [{"stand_in": 0}, {"stand_in": 2, "deal": tfds_sets.Deal("own")}])
def test_a_stand_in_has_images_and_no_splits(tmp_path, settings):
    with pytest.raises(ValueError, match="--stand_in must be a number of images a class above 0"):
        convert(tmp_path, tmp_path / "out", **settings)


def test_a_spool_gives_the_images_of_a_class_in_the_order_they_came(tmp_path):
    random = np.random.default_rng(0)
    images = [(int(random.integers(5)), random.bytes(int(n))) for n in random.integers(0, 50, 300)]
    spool = class_spool.ClassSpool(tmp_path, buffer_bytes=200)  # written many times
    for class_id, image in images:
        spool.add(class_id, image)
    spool.flush()
    for class_id in range(5):
        expected = [image for c, image in images if c == class_id]
        assert list(spool.images(class_id)) == expected
        assert spool.counts[class_id] == len(expected)
