"""Base images made from what is at hand, without a registry: busybox, Debian, a directory, a tarball."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from imagetool.build.state import DEFAULT_PATH
from imagetool.build.worker import Store, Times
from imagetool.errors import HostError, InvalidArchive, NotFound
from imagetool.image.image import Image
from imagetool.image.write import write_image, write_layer
from imagetool.layer.entry import Entry, Item
from imagetool.layer.scan import scan_upper
from imagetool.layer.tarcodec import write
from imagetool.layer.tarreader import read
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec, decompress
from imagetool.streams.pump import read_chunks

_PASSWD: Final = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
_GROUP: Final = b"root:x:0:\nnogroup:x:65534:\n"
_FOLDERS: Final = (b"bin", b"etc", b"home", b"lib", b"root", b"sbin", b"tmp", b"usr", b"usr/bin", b"usr/sbin", b"var")
#: Debian releases mmdebstrap is asked for, unless the name says another: debian:trixie.
_DEBIAN: Final = "bookworm"


def make_base(
    what: str, store: Store, *, platform: Platform, times: Times, codec: Codec, warn: Callable[[str], None]
) -> Image:
    """Make an image of one layer of `busybox`, `debian[:SUITE]`, a directory, or a root filesystem's tarball.

    Raises NotFound for anything else, HostError when this machine lacks what is needed.
    """
    path = Path(what)
    cmd: tuple[str, ...] = ("/bin/sh",)
    if what == "busybox":
        tar: Iterable[bytes] = write(_busybox_items(_busybox(), times.epoch * 10**9))
        return _image(store, tar, "busybox", cmd, platform, times, codec)
    if what == "debian" or what.startswith("debian:"):
        with _debian(what.partition(":")[2] or _DEBIAN, times) as chunks:
            return _image(store, chunks, what, ("/bin/bash",), platform, times, codec)
    if path.is_dir():
        items = scan_upper(path, clamp=None, warn=warn)
        retimed = ((entry._replace(mtime=times.of_layer(entry.mtime)), content) for entry, content in items)
        return _image(store, write(retimed), what, cmd, platform, times, codec)
    if path.is_file():
        with open(path, "rb") as file:
            items = read(decompress(read_chunks(file), where=what), where=what)
            return _image(store, write(items), what, cmd, platform, times, codec)
    raise NotFound(f"no base {what!r}: write busybox, debian, a directory or a tarball")


def _image(
    store: Store,
    tar: Iterable[bytes],
    what: str,
    cmd: tuple[str, ...],
    platform: Platform,
    times: Times,
    codec: Codec,
) -> Image:
    layer = write_layer(tar, store, codec)
    run = RunConfig(env=(f"PATH={DEFAULT_PATH}",), cmd=cmd)
    history = [History(times.created, f"imagetool base {what}")]
    config = ImageConfig.make(
        platform=platform, run=run, diff_ids=[layer.diff_id], history=history, created=times.created
    )
    return Image(write_image(store, config, [layer]), config, (layer,), store)


def _busybox() -> bytes:
    """Return a static busybox: the host's, else Debian's package, which is only downloaded and unpacked."""
    for folder in os.environ.get("PATH", DEFAULT_PATH).split(":"):
        path = Path(folder) / "busybox"
        if os.path.isfile(path) and _is_static(path.read_bytes()):
            return path.read_bytes()
    if shutil.which("apt-get"):
        with tempfile.TemporaryDirectory() as folder:
            command = ["apt-get", "download", "-q", "busybox-static"]
            done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
            packages = list(Path(folder).glob("*.deb"))
            if done.returncode == 0 and packages:
                return _from_package(packages[0])
    raise HostError("no static busybox here: install one (Debian: apt-get install busybox-static)")


def _is_static(program: bytes) -> bool:
    """Say whether an ELF file asks for no interpreter (program header type 3)."""
    if program[:5] != b"\x7fELF\x02":
        return False
    start, size, count = (int.from_bytes(program[at : at + n], "little") for at, n in ((32, 8), (54, 2), (56, 2)))
    headers = (program[start + size * number : start + size * number + 4] for number in range(count))
    return b"\x03\0\0\0" not in list(headers)


def _from_package(package: Path) -> bytes:
    """Return busybox out of a .deb: an ar archive whose data.tar member holds the files."""
    raw = package.read_bytes()
    at = 8
    while at + 60 <= len(raw):
        name, size = raw[at : at + 16].strip(), int(raw[at + 48 : at + 58])
        if name.startswith(b"data.tar"):
            where = package.name
            for entry, content in read(decompress([raw[at + 60 : at + 60 + size]], where=where), where=where):
                if entry.kind == "file" and entry.name.endswith(b"bin/busybox"):
                    return b"".join(content)
        at += 60 + size + size % 2
    raise InvalidArchive(f"{package.name} holds no busybox")


def _busybox_items(program: bytes, time: int) -> Iterator[Item]:
    for name in _FOLDERS:
        mode = {b"tmp": 0o1777, b"root": 0o700}.get(name, 0o755)
        yield Entry(name, "dir", mode, mtime=time), ()
    yield Entry(b"bin/busybox", "file", 0o755, size=len(program), mtime=time), (program,)
    for name in _applets(program):
        yield Entry(b"bin/" + name, "symlink", 0o777, mtime=time, linkname=b"busybox"), ()
    for name, text in ((b"etc/passwd", _PASSWD), (b"etc/group", _GROUP)):
        yield Entry(name, "file", 0o644, size=len(text), mtime=time), (text,)


def _applets(program: bytes) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "busybox"
        path.write_bytes(program)
        path.chmod(0o700)
        listed = subprocess.run([path, "--list"], capture_output=True, check=True).stdout
    return sorted(name for name in listed.split() if name != b"busybox" and b"/" not in name)


class _debian:  # noqa: N801 - a context manager used as a function
    """Opens the tar that mmdebstrap writes; leaving checks that it ended well."""

    def __init__(self, suite: str, times: Times) -> None:
        if not shutil.which("mmdebstrap"):
            raise HostError("mmdebstrap is not installed (Debian: apt-get install mmdebstrap)")
        self._suite = suite
        self._times = times

    def __enter__(self) -> Iterator[bytes]:
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(self._times.epoch)}
        self._process = subprocess.Popen(
            ["mmdebstrap", "--quiet", "--variant=minbase", self._suite, "-"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdout is not None
        return self._checked(read_chunks(self._process.stdout))  # type: ignore[arg-type]

    def _checked(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        yield from chunks
        _, problems = self._process.communicate()
        if self._process.returncode:
            lines = problems.decode(errors="replace").strip().splitlines()
            raise HostError(f"mmdebstrap failed: {lines[-1] if lines else self._process.returncode}")

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
