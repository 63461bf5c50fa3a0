"""A disk that fails at a chosen point, and the loop that chooses every point in turn.

`Disk` stands between Python and the system calls that change a file system: write, fsync, syncfs,
rename, link, unlink, mkdir, rmdir, chmod. It counts them and strikes at the one that was asked for, in one
of these ways:

    full    ENOSPC there and at every later call that needs space; half of a write still fits
    broken  EIO there, once; a write may have gone half way
    kill    SIGKILL in the middle of the call; what the kernel has been given stays
    power   SIGKILL, and all that was never synced is gone: files not synced are empty, names whose
            directory was not synced are as they were before, the worst that POSIX allows
    torn    as `power`, but all names have lasted: a journal that has names and not contents

The loop forks a process for each point, so it runs in a process of its own: see `each_point`.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from imagetool.snapshot import bundle

Strike = Literal["full", "broken", "kill", "power", "torn"]
STRIKES: tuple[Strike, ...] = ("full", "broken", "kill", "power", "torn")
#: Calls that need no space.
_FREEING = ("unlink", "rmdir")


class Disk:
    """Counts changes below `folder` and strikes at the `at`-th (from 1); 0 never strikes."""

    def __init__(self, folder: Path, at: int, strike: Strike) -> None:
        self.count = 0
        self.log: list[str] = []
        self._folder = os.path.realpath(folder)
        self._at = at
        self._strike = strike
        self._backups = Path(self._folder + ".backups")
        #: What a power cut undoes: (directory whose sync makes it last, what undoes it).
        self._names: list[tuple[str, Callable[[], None]]] = []
        self._dirty: dict[tuple[int, int], str] = {}

    def install(self) -> None:
        """Put the disk between Python and the system, for the rest of this process."""
        for name in ("fsync", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "chmod", "write"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        io.open = builtins.open = self._open  # type: ignore[assignment]
        bundle.sync_filesystem = self._whole

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            path = self._path(args[0], options.get("dir_fd", options.get("src_dir_fd")))
            if path is None:
                return call(*args, **options)
            with self._point({"remove": "unlink", "replace": "rename"}.get(name, name), path):
                if name == "fsync":
                    return self._synced(path)
                if name == "write":
                    status = os.fstat(args[0])
                    self._dirty[status.st_dev, status.st_ino] = path
                undo = self._undo(name, path, args, options)
                result = call(*args, **options)
                if undo is not None:
                    self._names.append((os.path.dirname(path), undo))
                return result

        return wrapper

    def _whole(self, fd: int) -> None:
        path = self._path(fd, None)
        assert path is not None, "synced what is none of our business"
        with self._point("syncfs", path):
            self._dirty.clear()
            self._names.clear()

    def _path(self, target: Any, dir_fd: int | None) -> str | None:
        """Return where a call goes to, None when that is none of our business."""
        if isinstance(target, int):
            path = os.readlink(f"/proc/self/fd/{target}")
        else:
            path = os.fsdecode(target)
            if dir_fd is not None:
                path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
            path = os.path.abspath(path)
        return path if path.startswith(self._folder + "/") or path == self._folder else None

    @contextlib.contextmanager
    def _point(self, name: str, path: str) -> Iterator[None]:
        self.count += 1
        self.log.append(f"{self.count} {name} {os.path.relpath(path, self._folder)}")
        if self._strikes(name):
            self._hit(path)
        yield

    def _strikes(self, name: str) -> bool:
        if self._at and self._strike == "full" and self.count > self._at:
            return name not in _FREEING
        return self.count == self._at

    def _hit(self, path: str) -> None:
        if self._strike in ("full", "broken"):
            number = errno.ENOSPC if self._strike == "full" else errno.EIO
            raise OSError(number, os.strerror(number), path)
        if self._strike in ("power", "torn"):
            self._lose()
        os.kill(os.getpid(), signal.SIGKILL)

    def _synced(self, path: str) -> None:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            self._names = [(folder, undo) for folder, undo in self._names if folder != path]
        else:
            self._dirty.pop((status.st_dev, status.st_ino), None)

    def _undo(self, name: str, path: str, args: Any, options: Any) -> Callable[[], None] | None:
        """Return what takes a change of names back."""
        if name == "mkdir":
            return lambda: _remove_folder(path)
        if name == "rmdir":
            return lambda: _mkdir(path)
        if name in ("unlink", "remove"):
            kept = self._keep(path)
            return lambda: _back(kept, path)
        if name in ("rename", "replace"):
            target = self._path(args[1], options.get("dst_dir_fd"))
            assert target is not None, "renamed out of the folder"
            kept = self._keep(target) if os.path.isfile(target) else None

            def undo() -> None:
                _rename(target, path)
                if kept:
                    _back(kept, target)

            self._names.append((os.path.dirname(target), undo))
        return None

    def _keep(self, path: str) -> str:
        """Return a second name for a file that is about to lose its own."""
        self._backups.mkdir(exist_ok=True)
        kept = str(self._backups / str(self.count))
        _link(path, kept)
        return kept

    def _lose(self) -> None:
        for status, path in list(self._dirty.items()):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_WRONLY)
                found = os.fstat(fd)
                if (found.st_dev, found.st_ino) == status:
                    os.ftruncate(fd, 0)
                os.close(fd)
        for _, undo in reversed(self._names) if self._strike == "power" else ():
            with contextlib.suppress(OSError):
                undo()
        # A file that was renamed since it was written is found by its number.
        for folder, _, names in os.walk(self._folder):
            for name in names:
                found = os.stat(os.path.join(folder, name))
                if (found.st_dev, found.st_ino) in self._dirty:
                    os.truncate(os.path.join(folder, name), 0)

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wxa+") or self._path(file, None) is None:
            return _system_open(file, mode, buffering, *rest, **options)
        path = self._path(file, None)
        assert path is not None
        assert "b" in mode, "text files are not watched"
        with self._point("create", path):
            raw = _File(file, mode.replace("b", ""))
        raw.disk, raw.path = self, path
        self._names.append((os.path.dirname(path), lambda: _unlink(path)))
        return raw if buffering == 0 else io.BufferedWriter(raw)

    def end(self) -> None:
        """Strike when all is done and acknowledged, if that is the point."""
        if self._strike in ("kill", "power", "torn") and self.count + 1 == self._at:
            self.log.append(f"{self._at} end")
            self._hit(self._folder)

    def wrote(self, file: _File, data: Any) -> int:
        """Write, or strike in the middle."""
        status = os.fstat(file.fileno())
        self._dirty[status.st_dev, status.st_ino] = file.path
        self.count += 1
        self.log.append(f"{self.count} write {os.path.relpath(file.path, self._folder)}")
        if self._strikes("write"):
            io.FileIO.write(file, bytes(data)[: len(data) // 2])
            self._hit(file.path)
        return io.FileIO.write(file, data)


class _File(io.FileIO):
    disk: Disk
    path: str

    def write(self, data: Any, /) -> int:
        return self.disk.wrote(self, data)


_system_open, _rename, _link, _unlink, _rmdir, _mkdir = io.open, os.rename, os.link, os.unlink, os.rmdir, os.mkdir


def _remove_folder(path: str) -> None:
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            _unlink(os.path.join(folder, name))
        _rmdir(folder)


def _back(kept: str, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        _unlink(path)
    _link(kept, path)


class Struck:
    """What became of one run: whether it came to its end, what it had acknowledged before, and its error."""

    def __init__(self, finished: bool, acknowledged: list[str], error: str, last: str) -> None:
        self.finished = finished
        self.acknowledged = acknowledged
        self.error = error
        self.last = last


def each_point(
    template: Path,
    scratch: Path,
    strike: Strike,
    work: Callable[[Path, Callable[[str], None]], None],
    check: Callable[[Path, Struck], None],
) -> int:
    """Run `work` on a copy of `template` for every point at which the disk can strike; return how many there were.

    `work` gets the folder and a function to call with each thing that is done for good. `check`
    gets the folder afterwards, as the next start finds it, and what became of the run.
    """
    at = 0
    while True:
        at += 1
        folder = scratch / f"{strike}-{at}"
        shutil.copytree(template, folder, symlinks=True)
        struck = _run(folder, at, strike, work)
        try:
            check(folder, struck)
        except BaseException as error:
            error.add_note(f"{strike} at point {at} ({struck.last}); acknowledged: {struck.acknowledged}")
            raise
        shutil.rmtree(folder)
        shutil.rmtree(f"{folder}.backups", ignore_errors=True)
        if not struck.last:
            assert struck.finished, struck.error
            return at - 1


def _run(folder: Path, at: int, strike: Strike, work: Callable[[Path, Callable[[str], None]], None]) -> Struck:
    inward, outward = os.pipe()
    child = os.fork()
    if not child:
        os.close(inward)
        disk = Disk(folder, at, strike)

        def tell(kind: str, text: str) -> None:
            os.write(outward, f"{kind}{text}\n".encode())

        try:
            disk.install()
            original = disk._hit
            disk._hit = lambda path: (tell("@", disk.log[-1]), original(path))[1]  # type: ignore[method-assign]
            work(folder, lambda text: tell("+", text))
            tell("!", "end")
            disk.end()
        except BaseException as error:  # noqa: BLE001 - told to the parent, whatever it is
            tell("-", f"{type(error).__name__}: {error}".replace("\n", " "))
        os._exit(0)
    os.close(outward)
    with os.fdopen(inward) as told:
        lines = told.read().splitlines()
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, status
    by_kind = {kind: [line[1:] for line in lines if line[0] == kind] for kind in "+-@!"}
    return Struck(bool(by_kind["!"]), by_kind["+"], "".join(by_kind["-"]), "".join(by_kind["@"][:1]))
