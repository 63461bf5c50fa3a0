"""What a build context may be: a directory, a tar, a Git repository, a URL, or nothing but a Dockerfile.

Source: docker build reference, "Build context".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from imagetool import limits
from imagetool.dockerfile import IgnoreRules
from imagetool.errors import InvalidArchive, NotFound, StorageError, UsageError
from imagetool.safefs.openat2 import open_in_root
from imagetool.streams.codecs import decompress, sniff
from imagetool.streams.pump import read_chunks
from imagetool.streams.verify import bounded
from imagetool.values import dataclass

if TYPE_CHECKING:
    from imagetool.build.worker import Downloader, Witness

STDIN: Final = "-"
_NAMES: Final = ("Dockerfile", "Containerfile")
_IGNORES: Final = (".dockerignore", ".containerignore")


@dataclass(frozen=True, slots=True)
class Opened:
    """A context that is a directory by now.

    text: the Dockerfile, when it came alone or by itself; None when it is a file.
    foreign: the files came from elsewhere, so nothing outside the directory is reached through them.
    time: when the context was committed, in seconds; None when it is not known.
    """

    folder: Path
    text: bytes | None = None
    foreign: bool = False
    time: int | None = None


def is_foreign(text: str) -> bool:
    """Say whether a context is anything but a directory: then it cannot be told whether it changed."""
    return text == STDIN or "://" in text or text.startswith(("git@", "github.com/")) or os.path.isfile(text)


@contextmanager
def open_context(
    text: str,
    *,
    scratch: Path,
    download: Downloader,
    stdin: BinaryIO | None = None,
    token: bytes = b"",
    keep_git_dir: bool = False,
) -> Iterator[Opened]:
    """Open what the user calls the context.

    Args:
        text: a directory, a tar file, a Git URL, an http(s) URL of a Dockerfile or tar, or `-` for
            one of those on stdin.
        scratch: where files are put that are elsewhere now; they are removed in the end.
        token: a password for the Git repository.
        keep_git_dir: leave .git in the context that a Git repository gives.

    Raises NotFound, UsageError, NetworkError, InvalidArchive.
    """
    if not is_foreign(text):
        if not os.path.isdir(text):
            raise NotFound(f"build context {text} is not a directory")
        yield Opened(Path(text))
        return
    from imagetool.build import git
    from imagetool.content.folders import scratch_folder

    with scratch_folder(scratch) as place:
        source = git.GitSource.parse(text)
        if source is not None:
            checkout = git.fetch(source, place / "files", token=token, keep_git_dir=keep_git_dir)
            yield Opened(checkout.folder, foreign=True, time=checkout.time)
        else:
            yield _fetched(text, place / "files", download, stdin)


def _fetched(text: str, folder: Path, download: Downloader, stdin: BinaryIO | None) -> Opened:
    folder.mkdir()
    if text == STDIN:
        if stdin is None:
            raise UsageError("the build context cannot be stdin here")
        return _from_stream(read_chunks(stdin), folder, "stdin")
    if "://" in text:
        if not text.lower().startswith(("http://", "https://")):
            raise UsageError(f"build context {text!r}: write a directory, a tar, a Git, http:// or https:// URL, or -")
        with download(text) as got:
            return _from_stream(got.chunks, folder, text)
    with open(text, "rb") as file:
        return _from_stream(read_chunks(file), folder, text)


def _from_stream(chunks: Iterable[bytes], folder: Path, where: str) -> Opened:
    """Unpack a tar, compressed or not; anything else is a Dockerfile without a context."""
    head = b""
    rest = iter(bounded(chunks, limits.LAYER_BYTES, where=where, name="LAYER_BYTES"))
    for chunk in rest:
        head += chunk
        if len(head) >= 512:
            break
    if _is_tar(head, where):
        _unpack(chain([head], rest), folder, where)
        return Opened(folder, foreign=True)
    for chunk in rest:
        head += chunk
        if len(head) > limits.DOCKERFILE_BYTES:
            raise InvalidArchive(
                f"{where}: neither a tar nor a Dockerfile: it is larger than {limits.named('DOCKERFILE_BYTES')}"
            )
    if not head.strip():
        raise UsageError(f"{where}: there is nothing: neither a tar nor a Dockerfile")
    if b"\0" in head:
        raise InvalidArchive(f"{where}: neither a tar nor a Dockerfile")
    return Opened(folder, text=head, foreign=True)


def _is_tar(head: bytes, where: str) -> bool:
    """Say whether bytes begin a tar; what is compressed can be nothing else."""
    if sniff(head) != "none":
        return True
    return head[257:262] == b"ustar" or (len(head) >= 512 and not head[:512].strip(b"\0"))


def _unpack(chunks: Iterable[bytes], folder: Path, where: str) -> None:
    from imagetool.layer.tarreader import read
    from imagetool.layer.unpack import Ownership, unpack
    from imagetool.layer.whiteout import is_reserved

    what = f"build context {where}"
    items = read(decompress(chunks, where=what), where=what)
    kept = ((entry, content) for entry, content in items if not is_reserved(entry.name))
    unpack(kept, folder, where=what, ownership=Ownership(owners=False, lenient=True), warn=lambda _: None)


def find_dockerfile(opened: Opened, name: Path | None, witness: Witness) -> tuple[Path, bytes]:
    """Return a build's Dockerfile: where it is, or would be, and what it says.

    In a directory of the user's, `name` is any file; in a foreign context it is a file in that.
    Raises NotFound, StorageError.
    """
    if opened.text is not None:
        witness.opaque()
        return opened.folder / _NAMES[0], opened.text
    if opened.foreign:
        names = [name] if name else [Path(one) for one in _NAMES]
        for one in names:
            data = _read_inside(opened.folder, one)
            if data is not None:
                return opened.folder / one, data
        raise NotFound(f"no {names[0]} in the build context; name one with --file")
    path = name or opened.folder / _NAMES[0]
    witness.opened(str(path))
    if name is None and not os.path.exists(path) and os.path.exists(opened.folder / _NAMES[1]):
        path = opened.folder / _NAMES[1]
        witness.opened(str(path))
    try:
        return path, _read_some(path)
    except FileNotFoundError:
        raise NotFound(f"no Dockerfile at {path}; name one with --file") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _read_some(path: Path) -> bytes:
    """Return what a file of the user's says, of one that has too much no more than shows that it has."""
    with open(path, "rb") as file:
        return file.read(limits.DOCKERFILE_BYTES + 1)


def find_ignore(opened: Opened, dockerfile: Path, witness: Witness) -> IgnoreRules:
    """Return what is left out of a context: by the Dockerfile's own rules, else by the context's."""
    for path in (dockerfile.with_name(dockerfile.name + _IGNORES[0]), *(opened.folder / name for name in _IGNORES)):
        if opened.foreign:
            data = _read_inside(opened.folder, path.relative_to(opened.folder)) if path.is_absolute() else None
            if data is not None:
                return IgnoreRules.parse(data, file=path.name)
            continue
        witness.opened(str(path))
        if os.path.isfile(path):
            try:
                text = _read_some(path)
            except OSError as error:
                raise StorageError(f"cannot read {path}: {error.strerror}") from error
            return IgnoreRules.parse(text, file=str(path))
    return IgnoreRules()


def folder_ignore(folder: Path) -> IgnoreRules:
    """Return what a directory's own ignore file leaves out; for named contexts."""
    for name in _IGNORES:
        data = _read_inside(folder, Path(name))
        if data is not None:
            return IgnoreRules.parse(data, file=str(folder / name))
    return IgnoreRules()


def _read_inside(folder: Path, name: Path) -> bytes | None:
    """Return a file's content, links followed inside the folder only; None when there is none."""
    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root, os.fsencode(name), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    finally:
        os.close(root)
    with open(fd, "rb") as file:
        try:
            data = file.read(limits.DOCKERFILE_BYTES + 1)
        except OSError as error:  # a directory
            raise StorageError(f"cannot read {name} of the build context: {error.strerror}") from None
    if len(data) > limits.DOCKERFILE_BYTES:
        raise InvalidArchive(f"{name} of the build context is larger than {limits.named('DOCKERFILE_BYTES')}")
    return data
