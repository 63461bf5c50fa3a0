"""Run programs as an ordinary user, in a mount namespace where nothing of the host changes.

The interpreter and the checkout may lie below directories that only root may enter (/root): the
namespace has them where they are, below open directories.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from imagetool.runtime.cgroups import reachable, remove_group

CHECKOUT = Path(__file__).resolve().parents[2]
NOBODY = 65534
_NO_NAMESPACES = """\
import os, sys
from imagetool.runtime import syscalls
ready, made, mapped, done = *os.pipe(), *os.pipe()
pid = os.getpid()
if os.fork() == 0:
    os.close(made)
    os.read(ready, 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write("0 0 65536")
    os._exit(0)
syscalls.unshare(syscalls.CLONE["user"])
os.write(made, b"x")
os.wait()
with open("/proc/sys/user/max_user_namespaces", "w") as file:
    file.write("0")
os.execvp(sys.argv[1], sys.argv[1:])
"""


@contextmanager
def users_folder() -> Iterator[Path]:
    """Make a directory that belongs to the user and that the user can reach; remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="imagetool-user-"))
    try:
        os.chown(folder, NOBODY, NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


def as_user(
    command: Sequence[str | Path],
    *,
    folder: Path,
    subordinate: bool = False,
    namespaces: bool = True,
    masked_proc: bool = False,
    tunnel: bool = False,
    groups: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path = CHECKOUT,
) -> subprocess.CompletedProcess[str]:
    """Run a command as nobody, with `folder` as home and for temporary files; root only.

    Args:
        subordinate: whether /etc/subuid and /etc/subgid give the user 65536 ids.
        namespaces: whether the user may make user namespaces.
        masked_proc: whether a file of /proc is hidden, as in a container, so that no new /proc can be mounted.
        tunnel: whether anybody may open /dev/net/tun, as systemd has it.
        groups: control groups that the command is put into; see `delegated`.
    """
    environment = {"PATH": _path(), "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8", **(env or {})}
    assignments = [f"{name}={value}" for name, value in environment.items()]
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", "-i", *assignments]
    wrapped = [*drop, *map(str, command)]
    if not namespaces:
        wrapped = [sys.executable, "-c", _NO_NAMESPACES, *wrapped]
    lines = ["set -e", *(f"echo $$ > {group}/cgroup.procs" for group in groups), *_open_places(folder)]
    if subordinate:
        lines += [f"echo nobody:300000:65536 > {folder}/subids"]
        lines += [f"mount --bind {folder}/subids /etc/{name}" for name in ("subuid", "subgid")]
    if masked_proc:
        lines.append("mount --bind /dev/null /proc/uptime")
    if tunnel:
        lines.append("mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200")
    lines += [f"cd {shlex.quote(str(cwd))}", f"exec {shlex.join(wrapped)}"]
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@contextmanager
def delegated(controllers: frozenset[str]) -> Iterator[list[Path]]:
    """Make the user a control group of version 1 for each of these controllers; remove them at the end."""
    made = []
    try:
        for place in reachable():
            if place.version != 1 or not place.controllers & controllers:
                continue
            group = Path(place.folder, f"delegated-{os.getpid()}")
            group.mkdir()
            made.append(group)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (group / name).exists():
                    (group / name).write_text((group.parent / name).read_text())
            for path in (group, *group.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        yield made
    finally:
        for group in made:
            remove_group(str(group))


def _path() -> str:
    return f"{Path(sys.prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def _open_places(folder: Path) -> list[str]:
    """Return the commands that put what the interpreter needs below directories that anybody may enter."""
    closed: dict[Path, list[Path]] = {}
    for needed in {CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)}:
        for above in reversed([needed, *needed.parents]):
            if os.stat(above).st_mode & 0o5 != 0o5:
                closed.setdefault(above, []).append(needed)
                break
    lines = []
    for number, (above, places) in enumerate(sorted(closed.items())):
        stash = folder / f"stash-{number}"
        lines += [f"mkdir {stash}", f"mount -t tmpfs tmpfs {stash}"]
        for place in places:
            lines += [f"mkdir -p {stash}{place}", f"mount --bind {place} {stash}{place}"]
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {above}")
        for place in places:
            lines += [f"mkdir -p {place}", f"mount --bind {stash}{place} {place}"]
        lines.append(f"umount --recursive {stash}; rmdir {stash}")
    return lines
