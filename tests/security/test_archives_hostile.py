"""Archives and directories of images that somebody made to hurt: bounded memory, one error, nothing outside."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from imagetool.api import Workplace, opened
from imagetool.errors import ImagetoolError, LimitExceeded

_BIG = 64 << 20
_ENOUGH = 24 << 20  # what reading such an archive may take


def _archive(path: Path, members: dict[str, bytes | int | str]) -> Path:
    """Write a gzipped tar; a number is that many spaces, a text is where a symlink leads."""
    out = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for name, what in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(what, str):
                member.type, member.linkname = tarfile.SYMTYPE, what
                tar.addfile(member)
                continue
            member.size = what if isinstance(what, int) else len(what)
            tar.addfile(member, _Spaces(what) if isinstance(what, int) else io.BytesIO(what))
    path.write_bytes(out.getvalue())
    return path


class _Spaces(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int = -1) -> bytes:
        self._left -= size
        return b" " * size


def _manifest(config: str = "c", layers: tuple[str, ...] = ()) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": ["a:1"], "Layers": layers}]).encode()


def _read(reference: str, root: Path) -> None:
    with opened(reference, Workplace(root)):
        pass


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("docker-archive", {"manifest.json": _BIG}),
        ("docker-archive", {"manifest.json": _manifest(), "c": _BIG}),
        ("oci-archive", {"oci-layout": _BIG}),
        ("oci-archive", {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _BIG}),
    ],
    ids=["manifest", "config", "layout", "index"],
)
def test_a_document_that_unpacks_to_very_much_is_not_read_whole(
    tmp_path: Path, kind: str, members: dict[str, bytes | int | str]
) -> None:
    path = _archive(tmp_path / "image.tar", members)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded):
            _read(f"{kind}:{path}", tmp_path / "root")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < _ENOUGH


@pytest.mark.parametrize(
    "members",
    [
        {"manifest.json/x": b""},
        {"manifest.json": _manifest("n" * 5000)},
        {"manifest.json": _manifest("a\0b")},
        {"manifest.json": _manifest("c", ("n" * 300,)), "c": b"{}"},
        {"manifest.json": _manifest("d"), "d/f": b""},
        {"a": b"", "a/b": b""},
        {"a": b"", "a/b": "../a"},
        {"n" * 300: b""},
        {"a": b"", "n" * 300: "a"},
    ],
    ids=["folder", "long name", "NUL", "long layer", "config is a folder", "below a file", "link below a file", "long",
         "long link"],
)  # fmt: skip
def test_an_archive_that_cannot_be_unpacked_is_refused_with_one_error(
    tmp_path: Path, members: dict[str, bytes | int | str]
) -> None:
    with pytest.raises(ImagetoolError):
        _read(f"docker-archive:{_archive(tmp_path / 'image.tar', members)}", tmp_path / "root")


@pytest.mark.parametrize("name", ["manifest.json", "version"])
def test_a_directory_where_a_file_should_be_is_refused_with_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "image" / name).mkdir(parents=True)
    with pytest.raises(ImagetoolError):
        _read(f"dir:{tmp_path / 'image'}", tmp_path / "root")
