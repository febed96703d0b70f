# SPDX-License-Identifier: Apache-2.0
"""One file of TFRecords a class: its records, all verified, in order or one at a time.

A record is: the length of its data (u64), that length's checksum (u32), the data, their checksum (u32).
The data are a tf.train.Example.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, NoReturn

import google_crc32c

from tf_lwdgh.data.store.example import find_image
from tf_lwdgh.data.store.spec import SPEC_FILE, DatasetSpec

FRAME = 16  # bytes of a record beside its data
_HEADER = 12


class Record(NamedTuple):
    """One whole record."""

    number: int
    offset: int  # of its data in the file, in bytes
    data: bytes
    stated: bytes  # the 4 bytes of their checksum

    @property
    def byte(self) -> int:
        """Where the record begins in the file."""
        return self.offset - _HEADER


class Fault(ValueError):
    """What is wrong with a file of records, and where.

    Attributes:
      path: of the file.
      class_id: of its class.
      record: the record's number, or None.
      byte: where the record begins in the file, or None.
    """

    def __init__(
        self, text: str, *, path: str, class_id: int, record: int | None, byte: int | None
    ) -> None:
        super().__init__(text)
        self.path, self.class_id, self.record, self.byte = path, class_id, record, byte


def refuse(fault: Fault) -> NoReturn:
    """Raises the fault."""
    raise fault


def class_path(folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> str:
    """The record file of a class."""
    return os.path.join(folder, spec.file_pattern.format(class_id))


def check_files(folder: str | os.PathLike, spec: DatasetSpec, split: str) -> None:
    """Makes sure that each class of a split has a file that can hold as many images as the spec says.

    Raises:
      FileNotFoundError: a class has no file.
      ValueError: a file is too small.
    """
    for class_id in spec.classes(split):
        file = RecordFile(folder, spec, class_id)
        try:
            size = os.stat(file.path).st_size
        except FileNotFoundError:
            raise FileNotFoundError(f"{file.name} is not there.") from None
        if size < FRAME * spec.images_per_class[class_id]:
            file.fault(
                f" must hold as many images as {SPEC_FILE} says "
                f"({spec.images_per_class[class_id]}). Received: a file of {size} bytes."
            )


def read_class(folder: str | os.PathLike, spec: DatasetSpec, class_id: int) -> list[bytes]:
    """All encoded images of a class, in order.

    Every record's checksum is verified, and that of the class where the spec states one.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, cut short or another class's; the message names file, class, and where it
        is one record's, record and byte.
    """
    file = RecordFile(folder, spec, class_id)
    with open(file.path, "rb") as opened:
        return [file.image(record) for record in file.walk(opened)]


class ClassChecksum:
    """CRC-32C over the checksums of a class's records as they stand in its file, in order.

    Attributes:
      value: of the records so far.
    """

    def __init__(self) -> None:
        self.value = 0

    def add(self, stated: bytes) -> None:
        """Takes the 4 bytes of the next record's checksum."""
        self.value = google_crc32c.extend(self.value, stated)


class RecordFile:
    """The record file of a class, and the words in which its faults are named.

    Attributes:
      path: of the file.
      class_id: of the class.
      name: of the file and the class, for messages.
      report: is told of every fault; where it returns, reading goes on as far as it can.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        spec: DatasetSpec,
        class_id: int,
        report: Callable[[Fault], None] = refuse,
    ) -> None:
        self.path, self.class_id, self.report = class_path(folder, spec, class_id), class_id, report
        self._spec = spec
        self.name = f"{self.path} (class {class_id}, {spec.class_names[class_id]!r})"

    def fault(self, what: str, record: int | None = None, byte: int | None = None) -> None:
        """Reports what is wrong: words that go on from the file's name."""
        fault = Fault(f"{self.name}{what}", path=self.path, class_id=self.class_id, record=record, byte=byte)
        self.report(fault)

    def walk(self, file: BinaryIO) -> Iterator[Record]:
        """The records of the opened file, one in memory at a time, all checksums verified.

        Raises:
          ValueError: as `read_class`.
        """
        size, at, number, checksum, whole = os.fstat(file.fileno()).st_size, 0, 0, ClassChecksum(), True
        while at < size:
            header = file.read(_HEADER)
            length = self._length(header, number, at, size)
            body = b"" if length is None else file.read(length + 4)
            if length is None or self._is_cut(body, length, number, at):
                return
            data, stated = body[:-4], body[-4:]
            if masked_crc32c(data) == int.from_bytes(stated, "little"):
                yield Record(number, at + _HEADER, data, stated)
            else:
                self._damaged_data(number, at)
                whole = False
            checksum.add(stated)
            at += FRAME + length
            number += 1
        if whole:
            self.check_class(number, checksum.value)

    def _length(self, header: bytes, number: int, at: int, size: int) -> int | None:
        """The length of a record's data; None, where that was a fault."""
        if len(header) < _HEADER:
            self.fault(f" is cut short in record {number}'s header at byte {at}.", number, at)
            return None
        length, checksum = struct.unpack("<QI", header)
        if masked_crc32c(header[:8]) != checksum:
            text = f" is damaged: wrong checksum in the header of record {number} at byte {at}."
            self.fault(text, number, at)
            return None
        if at + FRAME + length > size:
            text = f" is cut short: record {number} at byte {at} has {length} bytes."
            self.fault(text, number, at)
            return None
        return length

    def _is_cut(self, body: bytes, length: int, number: int, at: int) -> bool:
        """Whether less was read than the file had when it was opened."""
        if len(body) == length + 4:
            return False
        self.fault(f" was cut while it was read: record {number} at byte {at} is gone.", number, at)
        return True

    def check_class(self, count: int, checksum: int) -> None:
        """Compares what all records of the file came to with what the spec states of the class.

        Raises:
          ValueError: they are not the records that the spec was written for.
        """
        if not self._spec.class_checksums:
            return
        found, stated = f"{checksum:08x}", self._spec.class_checksums[self.class_id]
        if found != stated:
            self.fault(
                f" is not the file that {SPEC_FILE} describes: its {count} records must have the checksum "
                f"{stated}, of {self._spec.images_per_class[self.class_id]} records. Received: {found}."
            )

    def read(self, descriptor: int, offset: int, length: int, number: int) -> bytes:
        """The encoded image of one record, read from the open file and verified.

        Args:
          descriptor: of the file.
          offset: of the record's data.
          length: of the record's data.
          number: the record's.

        Raises:
          ValueError: the file was cut or changed since it was indexed.
        """
        content = os.pread(descriptor, length + 4, offset)
        at = offset - _HEADER
        if len(content) != length + 4:
            text = f" was cut since it was indexed: record {number} at byte {at} has {length} bytes."
            self.fault(text, number, at)
        data, stated = content[:length], content[length:]
        if masked_crc32c(data) != int.from_bytes(stated, "little"):
            self._damaged_data(number, at)
        return self.image(Record(number, offset, data, stated))

    def undecodable(self, number: int, reason: str, byte: int | None = None) -> None:
        """Reports a whole record whose image is none.

        Raises:
          ValueError: where faults are refused.
        """
        where = "" if byte is None else f" at byte {byte}"
        self.fault(f": the image of record {number}{where} cannot be decoded: {reason}", number, byte)

    def image(self, record: Record) -> bytes | None:
        """The encoded image in a record's data; None, where there is none and that was reported."""
        found = find_image(record.data)
        if found is None:
            place = (record.number, record.byte)
            text = ": record {} at byte {} is no tf.train.Example with a feature 'image'."
            self.fault(text.format(*place), *place)
        return found

    def _damaged_data(self, number: int, at: int) -> None:
        text = f" is damaged: the data of record {number} at byte {at} do not match their checksum."
        self.fault(text, number, at)


def masked_crc32c(data: bytes) -> int:
    """The checksum of TFRecords: CRC-32C, rotated and shifted."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
