# SPDX-License-Identifier: Apache-2.0
"""Safe unpacking of .zip and .tar archives: no member leaves the target folder, and none fills the disk.

What is declared is held against `limits` before it is unpacked.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import pathlib
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

from tf_lwdgh.converters.limits import Allowance
from tf_lwdgh.data.store import scratch_folder

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
_BLOCK = 1 << 20
_HEADERS = (  # of tar, whose content is read into memory: long names and the like
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_LONGEST = 1 << 20  # bytes of such a header
# What opening and reading damaged archives raises, whatever the compression.
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    EOFError, OSError, RuntimeError, struct.error, UnicodeError, OverflowError,
    TypeError, IndexError, KeyError,
)  # fmt: skip


def is_archive(path: str | os.PathLike) -> bool:
    """Whether the file's name ends like that of an archive that `unpack` reads."""
    return str(path).lower().endswith(SUFFIXES)


@contextlib.contextmanager
def as_folder(source: str | os.PathLike, *, beside: str | os.PathLike) -> Iterator[pathlib.Path]:
    """The source's folder; an archive is unpacked into a temporary folder, removed afterwards.

    Args:
      source: a folder or an archive; it is never written to.
      beside: the output, next to which the temporary folder is made.

    Raises:
      FileNotFoundError: there is no such source.
      ValueError: the source is neither a folder nor an archive, a member is unsafe, or it unpacks to
        more than is allowed.
      OSError: there is no room for it.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        yield source
        return
    if not source.exists():
        raise FileNotFoundError(f"There is no file or folder {source}.")
    if not is_archive(source):
        raise ValueError(f"{source} is neither a folder nor one of {', '.join(SUFFIXES)}.")
    with scratch_folder(beside, "unpacked") as folder:
        unpack(source, folder)
        yield folder


def unpack(archive: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Unpacks regular files and folders into `folder`; refuses everything else by name.

    A .zip says first what it unpacks to, a .tar before every member: so much is looked at before.

    Raises:
      ValueError: a member has an absolute path, leaves the folder, or is a link or a device; or the
        archive is damaged or unpacks to more than is allowed. Files of earlier members may then lie
        in `folder`, and nowhere else.
      OSError: there is no room for it.
    """
    folder = pathlib.Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if str(archive).lower().endswith(".zip"):
        _unpack_zip(pathlib.Path(archive), folder)
    else:
        _unpack_tar(pathlib.Path(archive), folder)


def _unpack_zip(archive: pathlib.Path, folder: pathlib.Path) -> None:
    with damage_named(archive), zipfile.ZipFile(archive) as file:
        Allowance(archive, folder).take(*(member.file_size for member in file.infolist()))
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UnsafeMember(archive, member.filename, "is a link or a device")
            target = _target(archive, folder, member.filename)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                with file.open(member) as content:
                    _write(content, target)


def _unpack_tar(archive: pathlib.Path, folder: pathlib.Path) -> None:
    # 'r|*' streams: an .xz archive is decompressed once, and nothing of it is held in memory.
    allowed = Allowance(archive, folder)
    with damage_named(archive), tarfile.open(archive, "r|*", tarinfo=_Member) as file:
        for member in file:
            if not (member.isreg() or member.isdir()):
                raise UnsafeMember(archive, member.name, "is a link or a device")
            if member.issparse():
                raise UnsafeMember(archive, member.name, "is a sparse file")
            allowed.take(member.size)
            target = _target(archive, folder, member.name)
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                _write(file.extractfile(member), target)


class _Member(tarfile.TarInfo):
    """A member whose header is no longer than headers are: tarfile would read it into memory."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and member.size > _LONGEST:
            raise OSError(f"a header of {member.size:,} bytes")
        return member


class UnsafeMember(ValueError):
    """A member of an archive that would write outside of the target folder."""

    def __init__(self, archive: pathlib.Path, member: str, what: str) -> None:
        super().__init__(f"{archive}: the member {member!r} {what}; refused.")


@contextlib.contextmanager
def damage_named(archive: pathlib.Path) -> Iterator[None]:
    """Turns what a damaged archive raises into a ValueError that names it."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk or a missing permission is no damage of the archive
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error


def _target(archive: pathlib.Path, folder: pathlib.Path, name: str) -> pathlib.Path:
    """Where a member goes; the folder holds no links, so that the path's text decides."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise UnsafeMember(archive, name, "has an absolute path")
    if ".." in parts or "\0" in name:
        raise UnsafeMember(archive, name, "leaves the target folder")
    return folder.joinpath(*parts)


def _write(content, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as out:
        shutil.copyfileobj(content, out, _BLOCK)


def tar_members(archive: pathlib.Path, suffixes: tuple[str, ...]) -> list[tarfile.TarInfo]:
    """The regular members with one of the endings, sorted by name; nothing is unpacked.

    Raises:
      ValueError: the archive is damaged.
    """
    with damage_named(archive), tarfile.open(archive, "r:", tarinfo=_Member) as file:
        found = [m for m in file if m.isreg() and m.name.lower().endswith(suffixes)]
    for member in found:
        if member.issparse():
            raise UnsafeMember(archive, member.name, "is a sparse file")
    return sorted(found, key=lambda m: m.name)


def checksum(*sources: str | os.PathLike) -> str:
    """'sha256:' of the files' content; of a folder its relative paths and sizes, for speed."""
    digest = hashlib.sha256()
    for source in map(pathlib.Path, sources):
        if source.is_dir():
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                relative = path.relative_to(source).as_posix()
                digest.update(os.fsencode(f"{relative}\0{path.stat().st_size}\n"))
            continue
        with open(source, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
