"""Answer a build whose inputs are all as they were: without reading a file, planning a step, or loading the builder.

A build that worked is recorded with all it looked at: files and directories by what `stat` says of
them, the names of base images by digest, the names it gave, the blobs it is made of. When the very
same request comes again and all of that still holds, the image is what it was. Anything else — one
difference, one thing that cannot be recorded, as what ADD gets from a URL — is a build as always,
from the cache of steps. What a build may look at, it tells its `Witness` (docs/adr/0021).

This module is on the path of every build, so it imports next to nothing.
"""

from __future__ import annotations

import os
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: Part of every record; raised when what a build makes of the same request changes.
VERSION = 3

SUFFIX = ".unchanged.json"

_REF_NAME = "org.opencontainers.image.ref.name"

_COARSE_TICK = 2_000_000_000
_FINE_TICK = 100_000_000  # ten times what it is, for kernels that are late

_STATE = struct.Struct("=6Q")
STATE_BYTES = _STATE.size
_WORD = (1 << 64) - 1  # times before 1970 are taken modulo this
_PAST = 1 << 63  # what is more was before 1970

_HEX = frozenset("0123456789abcdef")

#: The packages that compress: another version of one may make other bytes, and so another layer.
_CODECS = ("isal", "zlib_ng", "zstandard")


class Answer:
    """What a build gave: its image, by digest, and the steps and notes it showed.

    identity: the config's digest. descriptor: the manifest's, as JSON.
    shown: ["plan", platform, total, [[number, stage, name, needs], …]], ["step", number, total, name, stage],
    ["done", number, layer, size, key, cached, seconds] and ["note", text, level], in order.
    """

    __slots__ = ("descriptor", "identity", "shown")

    def __init__(self, identity: str, descriptor: dict[str, Any], shown: list[list[Any]]) -> None:
        self.identity = identity
        self.descriptor = descriptor
        self.shown = shown


def request(context: str, **values: Any) -> dict[str, Any] | None:
    """Return a request as JSON: all that a user says, apart from the files; None when it cannot be told.

    `values` must hold everything from the command line and the environment that the image depends
    on, SOURCE_DATE_EPOCH as `epoch` among them; without it, the commit of the context counts.
    """
    from imagetool import __version__

    if context == "-":  # stdin, whatever is called that here
        return None
    folder = os.path.realpath(context)
    revision = "" if values.get("epoch") else _revision(folder)
    if revision is None:
        return None
    own = {
        "version": [__version__, VERSION],
        "codecs": [_installed(name) for name in _CODECS],
        "context": folder,
        "cwd": os.getcwd(),
        "user": [os.geteuid(), os.uname().machine],
    }
    return {**values, **own, "revision": revision}


def _installed(package: str) -> list[Any]:
    """Return which installation of a package would be imported, without doing so: where it is, its size and times."""
    for folder in sys.path:
        path = f"{folder or '.'}/{package}/__init__.py"
        try:
            status = os.stat(path)
        except OSError:
            continue
        return [os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return []


def find(root: str, asked: dict[str, Any] | None) -> Answer | None:
    """Return what the same request gave when nothing has changed since, None when it must be built.

    `root` is the directory of the local store and the cache.
    """
    if asked is None:
        return None
    import json

    try:
        with open(_path(root, asked), "rb") as file:
            record = json.loads(file.read())
        with open(f"{root}/layout/index.json", "rb") as file:
            roots = json.loads(file.read())["manifests"]
        names = {(entry.get("annotations", {}).get(_REF_NAME), entry["digest"]) for entry in roots}
        wanted = [(name, digest) for name, digest in record["names"]]
        if not names.issuperset(wanted) or not all(_has_blob(root, *blob) for blob in record["blobs"]):
            return None
        if not _files_hold(asked["context"], record["files"]):
            return None
        return Answer(record["identity"], record["descriptor"], record["shown"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not there, or cut by a crash: built anew
        return None


def _path(root: str, asked: Mapping[str, Any]) -> str:
    import json
    from hashlib import sha256

    key = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"{root}/cache/{key}{SUFFIX}"


def _has_blob(root: str, digest: str, size: int) -> bool:
    algorithm, _, encoded = digest.partition(":")
    return os.stat(f"{root}/layout/blobs/{algorithm}/{encoded}").st_size == size


def _files_hold(context: str, files: dict[str, Any]) -> bool:
    """Say whether files and directories are the same; raises OSError when one has gone."""
    for path in files["absent"]:
        if os.path.lexists(path):
            return False
    for path, device, inode in files["folders"]:
        status = os.lstat(f"{context}/{path}")
        if (status.st_dev, status.st_ino) != (device, inode):
            return False
    if files["outside"] != [_line(path, os.stat(path)) for path in files["outside_paths"]]:
        return False
    from hashlib import sha256

    lstat, prefix = os.lstat, f"{context}/"
    states = b"".join([state_of(lstat(prefix + path)) for path in files["paths"]])
    return bool(sha256(states).hexdigest() == files["digest"])


def state_of(status: os.stat_result) -> bytes:
    """Return what identifies a file's content and attributes; any change of them shows in it."""
    return _STATE.pack(
        status.st_dev,
        status.st_ino,
        status.st_mode,
        status.st_size,
        status.st_mtime_ns & _WORD,
        status.st_ctime_ns & _WORD,
    )


def settled(states: bytes, moment: int) -> bool:
    """Say whether any change after a moment, in nanoseconds, would show in these states, one after another.

    A file that is changed twice within a tick of its file system's clock may look the same after
    both. Clocks that tell parts of a second tick every 10 ms at least, others every two seconds.
    """
    words = memoryview(states).cast("Q")
    times = (words[4::6], words[5::6])
    if all(max(part, default=0) + _COARSE_TICK <= moment for part in times):
        return True  # nearly always, and three times as fast
    return all(
        time + (_FINE_TICK if time % 1_000_000_000 else _COARSE_TICK) <= moment
        for part in times
        for time in part
        if time < _PAST
    )


def _line(path: str, status: os.stat_result) -> str:
    """Return what identifies a file's content and attributes; any change of them shows in it."""
    return (
        f"{path}\0{status.st_mode} {status.st_dev} {status.st_ino} {status.st_size}"
        f" {status.st_mtime_ns} {status.st_ctime_ns}"
    )


def _revision(folder: str) -> str | None:
    """Return which commit a directory is at, "" outside Git, None when that cannot be told by looking.

    A commit's time never changes, so the commit stands for it.
    """
    while not os.path.lexists(f"{folder}/.git"):
        if folder == "/":
            return ""
        folder = os.path.dirname(folder)
    try:
        head = _text(f"{folder}/.git/HEAD")
        if not head.startswith("ref: "):
            return _commit(head)
        name = head[5:]
        if not name.startswith("refs/") or ".." in name:
            return None
        if os.path.exists(f"{folder}/.git/{name}"):
            return _commit(_text(f"{folder}/.git/{name}"))
        lines = _text(f"{folder}/.git/packed-refs").splitlines()
        return next((_commit(line.partition(" ")[0]) for line in lines if line.endswith(f" {name}")), None)
    except (OSError, ValueError):  # a linked work tree, a submodule, no commit yet …
        return None


def _text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def _commit(text: str) -> str | None:
    return text if len(text) in (40, 64) and not set(text) - _HEX else None


class Watch:
    """Notes what one build looks at and shows, and records it; a `Witness`.

    root, asked: as for `find`. Make it before the build reads anything.
    """

    def __init__(self, root: str, asked: dict[str, Any] | None) -> None:
        self._root = root
        self._asked = asked
        self._started = time.time_ns()
        self._opaque = asked is None
        self._context = asked["context"] if asked else ""
        self._names: list[bytes] = []
        self._states: list[bytes] = []  # to keep what `stat` says would take ten times as much
        self._folders: dict[str, tuple[int, int]] = {}
        self._outside: dict[str, os.stat_result] = {}
        self._absent: list[str] = []
        self._bases: list[tuple[str, str]] = []
        self._shown: list[list[Any]] = []
        self._running: set[int] = set()

    def opaque(self) -> None:
        """See `Witness`."""
        self._opaque = True

    def saw(self, name: bytes, state: bytes) -> None:
        """See `Witness`."""
        self._names.append(name)
        self._states.append(state)

    def passed(self, name: bytes) -> None:
        """See `Witness`."""
        folder = os.fsdecode(name)
        if folder not in self._folders:
            try:
                status = os.lstat(f"{self._context}/{folder}")
            except OSError:
                self._opaque = True
                return
            self._folders[folder] = status.st_dev, status.st_ino

    def opened(self, path: str) -> None:
        """See `Witness`."""
        path = os.path.abspath(path)
        try:
            self._outside[path] = os.stat(path)
        except OSError:
            self._absent.append(path)

    def based(self, text: str, name: str, digest: str) -> None:
        """See `Witness`."""
        if not name or not set(text.removeprefix("sha256:")) - _HEX:  # found by digest: may become ambiguous
            self._opaque = True
        self._bases.append((name, digest))

    def step(self, number: int, total: int, name: str, stage: str) -> None:
        """Note that a step began."""
        self._running.add(number)
        self._shown.append(["step", number, total, name, stage])

    def planned(self, platform: str, total: int, steps: list[list[Any]]) -> None:
        """Note what the build was going to do."""
        self._shown.append(["plan", platform, total, steps])

    def done(self, number: int, layer: str, size: int, key: str, *, cached: bool, seconds: float) -> None:
        """Note that a step ended: it is shown with its beginning, though others began meanwhile."""
        self._running.discard(number)
        at = next(at for at, line in enumerate(self._shown) if line[:2] == ["step", number])
        self._shown.insert(at + 1, ["done", number, layer, size, key, cached, seconds])

    def note(self, text: str, level: str) -> None:
        """Note what the user was told; what a step tells is said only when it is carried out."""
        if not self._running:
            self._shown.append(["note", text, level])

    def check(self, rule: str, text: str, file: str, line: int) -> None:
        """Note what the lint found."""
        self._shown.append(["check", rule, text, file, line])

    def record(self, answer: Answer, *, names: list[tuple[str | None, str]], blobs: list[tuple[str, int]]) -> bool:
        """Record the build, which gave `answer`; say whether it can be answered from now on.

        names: what the image is called in the local store, with its digest; None for no name.
        blobs: digest and size of its manifest, config and layers.

        Raises StorageError when the disk refuses.
        """
        seen = dict(zip(self._names, self._states, strict=True))
        # What changed during the build has two states, whatever the clock says.
        steady = len(seen) == len(self._names) or [seen[name] for name in self._names] == self._states
        states = b"".join(seen.values())
        racy = not settled(states + b"".join(map(state_of, self._outside.values())), self._started)
        if self._opaque or racy or not steady or self._asked is None:
            return False
        import json
        from hashlib import sha256
        from pathlib import Path

        from imagetool.content.staging import StagedFile, storage_errors

        files = {
            "paths": [os.fsdecode(name) for name in seen],
            "digest": sha256(states).hexdigest(),
            "folders": [[path, *identity] for path, identity in self._folders.items()],
            "outside_paths": list(self._outside),
            "outside": [_line(path, status) for path, status in self._outside.items()],
            "absent": self._absent,
        }
        record = {
            "identity": answer.identity,
            "descriptor": answer.descriptor,
            "shown": answer.shown,
            "names": [*self._bases, *names],
            "blobs": blobs,
            "files": files,
        }
        folder = Path(self._root) / "cache"
        with storage_errors(f"cannot make the build cache {folder}"):
            folder.mkdir(exist_ok=True)
        with StagedFile(folder / ".staging") as file:
            file.write(json.dumps(record).encode("ascii"))
            file.place(Path(_path(self._root, self._asked)), durable=False)
        return True

    @property
    def shown(self) -> list[list[Any]]:
        """What the build showed, as of `Answer`."""
        return self._shown
