# SPDX-License-Identifier: Apache-2.0
"""Our data sets for TensorFlow Datasets: the builder `tf_lwdgh`, one config a data set.

Importing this module registers it: `tfds.load('tf_lwdgh/glyphs')` draws the built-in set, and every
other config reads <manual_dir>/<config>, a converter's records or a tree split/class/images. What TFDS
has prepared it reads without this module. With beam=True the classes are read on Apache Beam.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from tf_lwdgh.converters import builder_sources as sources
from tf_lwdgh.converters import glyphs
from tf_lwdgh.data import store

_SPLITS = {"train": tfds.Split.TRAIN, "val": tfds.Split.VALIDATION, "test": tfds.Split.TEST}
Example = tuple[str, dict[str, Any]]


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """One data set, by the name of its folder.

    Attributes:
      channels: of the images as they are decoded: 1 or 3. The files' bytes stay as they are.
    """

    channels: int = 3

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"Config.channels must be 1 or 3. Received: {self.channels!r}.")


class TfLwdgh(tfds.core.GeneratorBasedBuilder):
    """Few-shot data sets: `train`, `validation` and `test` hold different classes.

    Examples are {image: uint8 [H, W, C], label: int64 over the classes of all three splits, superclass:
    int64, -1 where the data set has none}.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    manual_dir (--manual_dir) must hold a folder named like the config, of records that a converter wrote
    (`python -m tf_lwdgh.converters --help`) or of images, split/class/images.
    """
    BUILDER_CONFIGS = [
        Config(name=name, channels=channels, description=description)
        for name, channels, description in (
            ("glyphs", 3, "Characters drawn from fonts; needs no files."),
            ("omniglot", 1, "Omniglot, drawings of characters."),
            ("mini_imagenet", 3, "mini-ImageNet."),
            ("tiered_imagenet", 3, "tiered-ImageNet."),
            ("tiny_imagenet", 3, "Classes of Tiny ImageNet."),
            ("cub", 3, "CUB-200-2011, birds."),
            ("cifar_fs", 3, "CIFAR-FS."),
            ("fc100", 3, "FC100."),
        )
    ]
    DEFAULT_BUILDER_CONFIG_NAME = "glyphs"

    def __init__(self, *, config: str | Config | None = None, beam: bool = False, **kwargs: Any) -> None:
        """A builder.

        Args:
          config: one of BUILDER_CONFIGS, the name of another folder, whose images are
            then decoded to 3 channels, or a Config.
          beam: read the classes on Apache Beam, by TFDS's beam_runner and beam_options.
          **kwargs: data_dir, version, file_format, as of every builder.

        Raises:
          ImportError: Apache Beam is asked for and not installed.
        """
        self._beam = beam
        if beam and importlib.util.find_spec("apache_beam") is None:
            raise ImportError("beam=True needs the package apache-beam, which is not installed.")
        if isinstance(config, str) and ":" not in config and config not in self.builder_configs:
            config = Config(name=config)
        super().__init__(config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Few-shot classification: the splits hold different classes.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, self.builder_config.channels)),
                    "label": tfds.features.ClassLabel(),
                    "superclass": tfds.features.ClassLabel(),
                }
            ),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        name = self.builder_config.name
        is_drawn = name == glyphs.NAME
        source = sources.Drawn() if is_drawn else sources.find(dl_manager.manual_dir, name)
        spec, superclasses = source.spec, list(source.superclasses)
        names = list(dict.fromkeys(superclasses))
        self.info.features["label"].names = _checked(spec.class_names, "class")
        self.info.features["superclass"].names = _checked(names, "superclass")
        self.info.metadata.update(
            split_name=spec.split_name,
            content_checksum=spec.content_checksum,
            source_checksum=spec.source_checksum,
            converter_version=spec.converter_version,
        )
        ids = [names.index(s) for s in superclasses] or [-1] * len(spec.class_names)
        return {
            _SPLITS[split]: self._generate_examples(source, {i: ids[i] for i in spec.classes(split)})
            for split in store.SPLITS
            if spec.classes(split)
        }

    def _generate_examples(self, source: sources.Source, superclass_of: Mapping[int, int]) -> Any:
        """The examples of some classes, as a generator or, on Beam, as a PTransform."""
        of_class = functools.partial(_examples, source)
        if not self._beam:
            return (example for pair in superclass_of.items() for example in of_class(pair))
        beam = tfds.core.lazy_imports.apache_beam
        return beam.Create(list(superclass_of.items())) | beam.Reshuffle() | beam.FlatMap(of_class)


def _examples(source: sources.Source, classes: tuple[int, int]) -> Iterator[Example]:
    """The examples of one class, (its id, its superclass's id), under keys that are the same always."""
    class_id, superclass = classes
    for i, image in enumerate(source.images(class_id)):
        yield f"{class_id}/{i}", {"image": image, "label": class_id, "superclass": superclass}


def _checked(names: Sequence[str], kind: str) -> list[str]:
    """The names, where TFDS can keep them: one a line, without blanks around them.

    Raises:
      ValueError: it can't.
    """
    odd = [n for n in names if n != n.strip() or not n or "\n" in n]
    odd += [n for n in dict.fromkeys(names) if list(names).count(n) > 1]
    if odd:
        raise ValueError(
            f"TFDS keeps {kind} names one a line: they must differ, and have no line break and no "
            f"blanks around them. Received: {odd[:5]}."
        )
    return list(names)
