"""ADD: archives and URLs, rule 28 of the build reference."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from imagetool.errors import BuildError, DigestMismatch
from tests.support.workshop import EPOCH, Workshop, texts, tree

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


def archive(form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("d/f", tarfile.REGTYPE),
            ("d/h", tarfile.LNKTYPE),
            ("s", tarfile.SYMTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid, member.mtime = kind, 0o4711, 5, 6, 86_400
            member.linkname = "d/f" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
            member.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"abc"))
    return out.getvalue()


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_are_unpacked_whatever_their_name(shop: Workshop, packer: str, form: int) -> None:
    shop.write("blob", PACKERS[packer](archive(form)))
    image = shop.build("FROM base\nADD blob /bin/in\n")
    found = tree(image, layers=[1])
    assert texts(image, layers=[1]) == {"usr/bin/in/d/f": "abc", "usr/bin/in/d/h": ""}
    entry = found["usr/bin/in/d/f"][0]
    assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (0o4711, 5, 6, 86_400 * 10**9)
    assert (found["usr/bin/in/s"][0].linkname, found["usr/bin/in/d/h"][0].linkname) == (b"d/f", b"usr/bin/in/d/f")
    assert (found["usr/bin/in"][0].mode, found["usr/bin/in"][0].uid) == (0o755, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"text",
        b"",
        gzip.compress(b"no tar" * 100),
        archive()[:200],
        gzip.compress(archive())[:40],
        b"\x1f\x8b junk" * 9,
    ],
    ids=["text", "empty", "gzip of text", "cut tar", "cut gzip", "no gzip"],
)
def test_what_is_no_archive_is_copied(shop: Workshop, data: bytes) -> None:
    shop.write("file.tar.gz", data)
    found = tree(shop.build("FROM base\nADD file.tar.gz /n/\n"), layers=[1])
    assert found["n/file.tar.gz"][1] == data


def test_unpacking_can_be_turned_off_and_owners_said(shop: Workshop) -> None:
    shop.write("a.tar", archive())
    assert tree(shop.build("FROM base\nADD --unpack=false a.tar /n/\n"), layers=[1])["n/a.tar"][1] == archive()
    found = tree(shop.build("FROM base\nADD --chown=user:staff --chmod=u=rw a.tar /n/\n"), layers=[1])
    assert (found["n/d/f"][0].uid, found["n/d/f"][0].gid, found["n/d/f"][0].mode) == (101, 50, 0o611)


def test_archives_beside_files_and_by_wildcard(shop: Workshop) -> None:
    shop.write("a.tar", archive())
    shop.write("plain", "p")
    unpacked = {"n/d/f": "abc", "n/d/h": ""}
    for sources in ("a.tar plain /n/", "a.tar plain /n", "* /n/"):
        assert texts(shop.build(f"FROM base\nADD {sources}\n"), layers=[1]) == {"n/plain": "p", **unpacked}
    assert texts(shop.build("FROM base\nADD *.tar /n/\n"), layers=[1]) == unpacked


def small(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(member)
    return out.getvalue()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bin/tool"], {"usr/bin/tool"}),
        (["etc/link/new/f"], {"there/new/f"}),
        (["bin/", "bin/tool"], {"bin/tool"}),
        (["new/f"], {"new/f"}),
    ],
)
def test_an_archive_follows_the_links_of_the_root(shop: Workshop, names: list[str], expected: set[str]) -> None:
    shop.write("a.tar", small(*names))
    assert texts(shop.build("FROM base\nADD a.tar /\n"), layers=[1]).keys() == expected


@pytest.mark.parametrize(
    ("links", "name", "expected"),
    [
        ({"up": ".."}, "up/etc/f", "n/etc/f"),
        ({"up": "/"}, "up/etc/f", "n/etc/f"),
        ({"d/up": "../../.."}, "d/up/f", "n/f"),
        ({"etc": "/etc"}, "d/f", "n/d/f"),
        ({"lib64": "usr/lib", "usr/lib": "./lib32/"}, "lib64/x/f", "n/usr/lib32/x/f"),
        ({"out": "/etc/ssl"}, "out/f", "n/etc/ssl/f"),
        ({"f": "d"}, "f", "n/f"),
    ],
)
def test_the_links_of_an_archive_do_not_leave_the_destination(
    shop: Workshop, links: dict[str, str], name: str, expected: str
) -> None:
    """Nor is anything put below a link in the layer, where it would depend on who unpacks it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for each, target in links.items():
            member = tarfile.TarInfo(each)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo(name))
    shop.write("a.tar", out.getvalue())
    found = tree(shop.build("FROM base\nADD a.tar /n/\n"), layers=[1])
    assert [each for each, (entry, _) in found.items() if entry.kind == "file"] == [expected]
    assert {each for each, (entry, _) in found.items() if entry.kind == "symlink"} == {
        f"n/{each}" for each in links if each != name
    }


def test_links_of_an_archive_that_lead_to_each_other_end(shop: Workshop) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for each, target in (("a", "b"), ("b", "a")):
            member = tarfile.TarInfo(each)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("a/f"))
    shop.write("a.tar", out.getvalue())
    with pytest.raises(BuildError, match=r"ADD a\.tar: a/f: symlinks above it lead to each other"):
        shop.build("FROM base\nADD a.tar /n/\n")


def test_an_archive_cannot_delete(shop: Workshop) -> None:
    shop.write("a.tar", small("etc/.wh.passwd"))
    with pytest.raises(BuildError, match=r"\.wh\."):
        shop.build("FROM base\nADD a.tar /\n")


def test_the_cache_looks_into_archives_and_files(shop: Workshop) -> None:
    text = "FROM base\nADD a.tar plain /n/\n"
    shop.write("a.tar", archive())
    shop.write("plain", "p")
    shop.build(text)
    shop.build(text)
    assert shop.cached[1:] == [True]
    shop.write("plain", "q")
    assert texts(shop.build(text), layers=[1])["n/plain"] == "q"
    assert shop.cached[1:] == [False]


URL = "http://example.invalid/dir/name.tar?query"


def test_a_url_is_a_file_with_the_servers_time(shop: Workshop) -> None:
    shop.downloads[URL] = ("name.tar", 86_400 * 10**9, archive())
    found = tree(shop.build(f"FROM base\nADD {URL} /n/\n"), layers=[1])
    entry, data = found["n/name.tar"]
    assert (entry.mode, entry.uid, entry.mtime) == (0o600, 0, 86_400 * 10**9)
    assert data == archive()
    shop.downloads[URL] = ("name.tar", 4 * 10**18, b"later")
    found = tree(shop.build(f"FROM base\nADD --chmod=644 --chown=5:6 {URL} /other\n"), layers=[1])
    entry = found["other"][0]
    assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (0o644, 5, 6, EPOCH)


def test_a_url_may_be_unpacked(shop: Workshop) -> None:
    shop.downloads[URL] = ("name.tar", 0, gzip.compress(archive()))
    assert texts(shop.build(f"FROM base\nADD --unpack=true {URL} /n/\n"), layers=[1]) == {"n/d/f": "abc", "n/d/h": ""}


def test_a_checksum_is_checked(shop: Workshop) -> None:
    shop.downloads[URL] = ("name.tar", 0, b"data")
    digest = f"sha256:{hashlib.sha256(b'data').hexdigest()}"
    assert texts(shop.build(f"FROM base\nADD --checksum={digest} {URL} /n\n"), layers=[1]) == {"n": "data"}
    with pytest.raises(DigestMismatch, match=digest[:20]):
        shop.build(f"FROM base\nADD --checksum=sha256:{'0' * 64} {URL} /n\n")
    assert not list((shop.place / "scratch").glob("*"))


def test_a_url_without_a_name_needs_one(shop: Workshop) -> None:
    shop.downloads["http://example.invalid/"] = ("", 0, b"data")
    with pytest.raises(BuildError, match="file name"):
        shop.build("FROM base\nADD http://example.invalid/ /n/\n")
    assert texts(shop.build("FROM base\nADD http://example.invalid/ /n\n"), layers=[1]) == {"n": "data"}
