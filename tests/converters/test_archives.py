# SPDX-License-Identifier: Apache-2.0
"""No member of an archive leaves the target folder; nothing is left behind."""

import io
import stat
import tarfile
import zipfile

import pytest

from tf_lwdgh.converters import archives

_ESCAPES = [
    "../outside",
    "a/../../outside",
    "/tmp/outside",
    "..\\outside",
    "C:\\outside",
    "\\outside",
]


def _tar(path, *members: tarfile.TarInfo):
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as file:
        for member in members:
            member.size = 4 if member.isreg() else 0
            file.addfile(member, io.BytesIO(b"data") if member.isreg() else None)
    return path


def _member(name, kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def _everything(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


@pytest.mark.parametrize("name", _ESCAPES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_member_that_leaves_the_folder_is_refused_by_name(tmp_path, kind, name):
    target = tmp_path / "deep" / "target"
    target.mkdir(parents=True)
    path = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(zipfile.ZipInfo(name), "data")
    else:
        _tar(path, _member(name))
    with pytest.raises(archives.UnsafeMember, match=r"evil\.\w+: the member .*outside"):
        archives.unpack(path, target)
    assert _everything(tmp_path) == ["deep", "deep/target", path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(tmp_path, kind):
    path = _tar(tmp_path / "evil.tar", _member("thing", kind, "/etc"), _member("thing/file"))
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(archives.UnsafeMember, match="member 'thing' is a link or a device"):
        archives.unpack(path, target)
    assert not _everything(target)


def test_links_in_zip_are_refused(tmp_path):
    path = tmp_path / "evil.zip"
    member = zipfile.ZipInfo("thing")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(member, "/etc")
    with pytest.raises(archives.UnsafeMember, match="member 'thing' is a link or a device"):
        archives.unpack(path, tmp_path / "target")


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.xz"])
def test_unpacked_folder_lies_beside_the_output_and_is_removed(tmp_path, suffix):
    path = tmp_path / f"good.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a/b.txt", "data")
    else:
        _tar(path, _member("a", tarfile.DIRTYPE), _member("a/b.txt"))
    before = path.read_bytes()
    out = tmp_path / "data" / "set"
    with archives.as_folder(path, beside=out) as folder:
        assert folder.parent == out.parent
        assert _everything(folder) == ["a", "a/b.txt"]
        assert (folder / "a/b.txt").read_bytes() == b"data"
    assert _everything(out.parent) == []
    with pytest.raises(KeyError), archives.as_folder(path, beside=out):
        raise KeyError
    assert _everything(out.parent) == [] and path.read_bytes() == before


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.xz"])
def test_damaged_archive_is_named(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "data" * 100)
    else:
        _tar(path, _member("a"))
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: 60 if suffix == "tar.xz" else 40])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be unpacked"):
        with archives.as_folder(path, beside=tmp_path / "out"):
            pass
    assert _everything(tmp_path) == [path.name]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"\x1f\x8b\x08\x04\0\0\0\0\0\0"])
def test_a_gzip_header_that_is_cut_is_named(tmp_path, content):
    (tmp_path / "x.tgz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.tgz cannot be unpacked"):
        archives.unpack(tmp_path / "x.tgz", tmp_path / "out")


def test_missing_and_unknown_sources_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder .*nowhere"):
        with archives.as_folder(tmp_path / "nowhere", beside=tmp_path / "out"):
            pass
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"note\.txt is neither a folder nor one of \.zip"):
        with archives.as_folder(tmp_path / "note.txt", beside=tmp_path / "out"):
            pass


def test_checksum_follows_content(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    one = archives.checksum(tmp_path / "a")
    assert one == "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    whole = archives.checksum(tmp_path)
    (tmp_path / "b").write_bytes(b"22")
    assert archives.checksum(tmp_path) != whole
