# SPDX-License-Identifier: Apache-2.0
"""Forms of files (multipart/form-data), from a body that is whole."""

from __future__ import annotations

from typing import Any, NamedTuple

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from tf_lwdgh.server.refusals import Refused

FORM = "multipart/form-data"


class Part(NamedTuple):
    """A field of a form.

    Attributes:
      field: its name.
      file: the file's name; None where it is no file.
      content: its bytes.
    """

    field: str
    file: str | None
    content: bytes


def parse(content_type: str, body: bytes, most: int) -> list[Part]:
    """The parts of a form, in their order.

    Args:
      content_type: the request's, which names the boundary.
      body: the request's.
      most: parts that it may have.

    Raises:
      Refused: it is no form (400), or has more parts (413).
    """
    kind, options = parse_options_header(content_type)
    if kind != FORM.encode() or not options.get(b"boundary"):
        raise Refused(400, f"the body must be {FORM} with a boundary. Received: {content_type!r}.")
    collector = _Collector(most)
    try:
        parser = MultipartParser(options[b"boundary"], collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"the body must be a form: {error}.") from error
    if not collector.ended:
        raise Refused(400, "the body must be a form: it ends too early.")
    return collector.parts


class _Collector:
    """Takes what the parser finds."""

    def __init__(self, most: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._most = most

    def callbacks(self) -> Any:
        names = (
            "on_part_begin", "on_header_field", "on_header_value", "on_header_end", "on_part_data",
            "on_part_end", "on_end",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def on_part_begin(self) -> None:
        if len(self.parts) >= self._most:
            raise Refused(413, f"a form must have at most {self._most} parts.")
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value, self._data = bytearray(), bytearray(), bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def on_part_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if b"name" not in options:
            raise Refused(400, "every part of a form must have a name in its Content-Disposition.")
        file = options.get(b"filename")
        known = None if file is None else _text(file)
        self.parts.append(Part(_text(options[b"name"]), known, bytes(self._data)))

    def on_end(self) -> None:
        self.ended = True


def _text(name: bytes) -> str:
    """A name as it was meant: browsers write a quotation mark as %22, and ends of lines likewise."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(400, "names in a form must be UTF-8.") from error
    for written, meant in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        text = text.replace(written, meant)
    return text
