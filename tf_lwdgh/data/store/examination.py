# SPDX-License-Identifier: Apache-2.0
"""Looks at everything a data set on disk holds, and goes on after each fault it finds."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_lwdgh.data.store.croissant import CROISSANT_FILE
from tf_lwdgh.data.store.duplicates import find_duplicates
from tf_lwdgh.data.store.example import find_labels
from tf_lwdgh.data.store.findings import Finding, Findings
from tf_lwdgh.data.store.index import INDEX_FILES
from tf_lwdgh.data.store.records import Fault, Record, RecordFile, class_path
from tf_lwdgh.data.store.spec import SPEC_FILE, DatasetSpec
from tf_lwdgh.data.store.writer import content_checksum, encoding

_AT_ONCE = 64  # images decoded by one call


def examine(
    folder: str | os.PathLike,
    spec: DatasetSpec,
    *,
    limit: int = 1000,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> Findings:
    """Reads every record of a data set, decodes every image, and holds all to the spec.

    Faults are: missing files, wrong checksums of records, classes or the whole, records that are no
    tf.train.Example, another class's label, images that cannot be decoded or have another size or
    encoding than the spec says, other numbers of images. Warnings are: files that belong to no class, and
    the same bytes of an image twice.

    Args:
      folder: the records'.
      spec: their description.
      limit: how many faults, and how many warnings, are kept; all are counted.
      threads: classes examined at the same time; None: one a core.
      progress: is told of every so many images that were looked at.
    """
    findings = Findings(limit)
    _find_strays(folder, spec, findings)

    def one(class_id: int) -> _Seen:
        return _Examiner(folder, spec, class_id, findings, progress).run()

    pool = concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count())
    try:
        seen = list(pool.map(one, range(len(spec.images_per_class))))
    finally:
        pool.shutdown(cancel_futures=True)
    if all(s.whole for s in seen) and spec.content_checksum:
        found = content_checksum(s.sha256 for s in seen)
        if found != spec.content_checksum:
            findings.add(Finding(
                f"{os.path.join(folder, SPEC_FILE)} describes other images: their checksum must be "
                f"{spec.content_checksum}. Received: {found}."
            ))  # fmt: skip
    find_duplicates(folder, spec, [(s.digests, s.numbers) for s in seen], findings)
    return findings


class _Seen(NamedTuple):
    """What was seen of a class."""

    whole: bool  # no fault in its file, and as many images as the spec says
    sha256: str  # of its images
    digests: bytes  # 16 an image
    numbers: list[int]  # of the records they are in


def _find_strays(folder: str | os.PathLike, spec: DatasetSpec, findings: Findings) -> None:
    ids = range(len(spec.images_per_class))
    classes = (os.path.basename(class_path(folder, spec, c)) for c in ids)
    known = {SPEC_FILE, CROISSANT_FILE, *INDEX_FILES, *classes}
    for name in sorted(set(os.listdir(folder)) - known):
        path = os.path.join(folder, name)
        findings.warn(Finding(f"{path} belongs to no class of the data set.", file=path))


class _Examiner:
    """Examines one class."""

    def __init__(
        self,
        folder: str | os.PathLike,
        spec: DatasetSpec,
        class_id: int,
        findings: Findings,
        progress: Callable[[int], None],
    ) -> None:
        self._spec, self._class_id, self._findings, self._progress = spec, class_id, findings, progress
        self._whole = True
        self._file = RecordFile(folder, spec, class_id, report=self._report)
        self._readable = RecordFile(folder, spec, class_id, report=findings.fault)  # faults of whole records
        self._odd: dict[str, list[tuple[int, int, str]]] = {"label": [], "size": [], "encoding": []}

    def run(self) -> _Seen:
        """Looks at every record that can be reached."""
        sha256, digests, numbers = hashlib.sha256(), [], []
        for records in self._chunks():
            images = [self._file.image(record) for record in records]
            found = [(r, image) for r, image in zip(records, images) if image is not None]
            for record, image in found:
                sha256.update(image)
                digests.append(hashlib.blake2b(image, digest_size=16).digest())
                numbers.append(record.number)
                self._look_at(record, image)
            self._decode([r for r, _ in found], [image for _, image in found])
            self._progress(len(records))
        self._sum_up(len(numbers))
        whole = self._whole and len(numbers) == self._spec.images_per_class[self._class_id]
        return _Seen(whole, sha256.hexdigest(), b"".join(digests), numbers)

    def _report(self, fault: Fault) -> None:
        self._whole = False
        self._findings.fault(fault)

    def _chunks(self) -> Iterator[list[Record]]:
        chunk: list[Record] = []
        try:
            with open(self._file.path, "rb") as opened:
                for record in self._file.walk(opened):
                    chunk.append(record)
                    if len(chunk) == _AT_ONCE:
                        yield chunk
                        chunk = []
        except FileNotFoundError:
            self._file.fault(" is not there.")
        except OSError as error:
            self._file.fault(f" cannot be read: {error.strerror}.")
        if chunk:
            yield chunk

    def _look_at(self, record: Record, image: bytes) -> None:
        """The label and the encoding of an image."""
        labels = find_labels(record.data)
        if labels != [self._class_id]:
            self._note("label", record, str(labels[0]) if len(labels) == 1 else "none")
        if self._spec.encoding not in ("mixed", encoding(image)):
            self._note("encoding", record, encoding(image))

    def _decode(self, records: Sequence[Record], images: Sequence[bytes]) -> None:
        """The sizes of images; where one can't be decoded, each by itself."""
        if not images:
            return
        try:
            sizes = _sizes(tf.constant(images, tf.string)).numpy()
        except tf.errors.InvalidArgumentError as error:
            if len(images) == 1:
                reason = error.message.strip().splitlines()[0]
                self._readable.undecodable(records[0].number, reason, records[0].byte)
                return
            for record, image in zip(records, images):
                self._decode([record], [image])
            return
        size = self._spec.image_size
        for record, (height, width) in zip(records, sizes):
            if size is not None and (height, width) != (size, size):
                self._note("size", record, f"{height}×{width}")

    def _note(self, what: str, record: Record, found: str) -> None:
        self._odd[what].append((record.number, record.byte, found))

    def _sum_up(self, count: int) -> None:
        stated = self._spec.images_per_class[self._class_id]
        if self._whole and count != stated:
            self._readable.fault(
                f" must hold as many images as {SPEC_FILE} says ({stated}). Received: {count}."
            )
        size = self._spec.image_size
        rules = {
            "label": f"the label {self._class_id}",
            "size": f"an image of {size}×{size}",
            "encoding": f"an image in {self._spec.encoding}",
        }
        for what, odd in self._odd.items():
            if odd:
                number, byte, found = odd[0]
                self._readable.fault(
                    f": every record must have {rules[what]}. Received: {found} in record {number} at byte "
                    f"{byte}; {len(odd)} of {count} records break the rule.", number, byte
                )  # fmt: skip


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _sizes(encoded: tf.Tensor) -> tf.Tensor:
    """Height and width of images [M], each decoded as a whole: [M, 2] int32."""

    @tf.autograph.experimental.do_not_convert
    def one(item: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(item, channels=3, expand_animations=False)
        return tf.ensure_shape(tf.shape(image), [3])[:2]

    return tf.map_fn(one, encoded, fn_output_signature=tf.TensorSpec([2], tf.int32))
