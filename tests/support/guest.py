"""A virtual machine for what this host cannot show: a kernel of Debian's, version 2 of control groups alone.

Its disk has the interpreter that runs the tests with its libraries, the program with what it imports, busybox and a
store with the image busybox; nothing of it is installed there. A script is its only job, and nothing changes on the
disk that another one sees. There is no network, and no hardware helps: a start of the program takes two seconds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.bases import made_once
from tests.support.systems import Kernel, need, run
from tests.support.users import CHECKOUT

#: What is not needed of Python's library.
_LEFT_OUT = (
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "config-*",
    "tkinter",
    "lib2to3",
)
_INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev; $b mount -t proc proc /proc; $b mount -t sysfs sys /sys
for module in $($b cat /modules); do $b insmod /$module.ko; done
tries=0
until [ -b /dev/vda ] || [ $tries = 200 ]; do $b sleep 0.05; tries=$((tries+1)); done
$b mount -t ext4 /dev/vda /root
for folder in dev proc sys; do $b mount -o move /$folder /root/$folder; done
$b cp /job /root/job
exec $b switch_root /root /bin/sh -c '. /job; echo the job is done; poweroff -f'
"""
#: What a job begins with. `imagetool` is the program, `commands` runs a line each of it, `as_user` does something as an
#: ordinary user with 65536 subordinate ids, who has `commands` too.
_PREPARED = """\
export PATH=/bin:/usr/bin:/usr/sbin HOME=/root PYTHONPATH=/site LC_ALL=C.UTF-8 IMAGETOOL_ROOT=/store
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mkdir -p /dev/pts /dev/shm; mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
exec 2>&1
imagetool() { {python} -m imagetool "$@"; }
commands() { {python} -m guestcommands; }
as_user() { su -s /bin/sh user -c "commands() { {python} -m guestcommands; }; $1"; }
"""


def guest_disk(factory: pytest.TempPathFactory, busybox_base: Path) -> Path:
    """Return the disk, made by the first worker that asks; only to be read."""
    need("mke2fs", "ldd", "busybox")

    def make(folder: Path) -> None:
        _fill(folder / "tree", busybox_base)
        run("truncate", "-s", "600M", folder / "disk")
        run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder / "tree", folder / "disk")
        shutil.rmtree(folder / "tree")

    return made_once(factory, "guest", make) / "disk"


def _fill(tree: Path, busybox_base: Path) -> None:
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp", "run", "root", "home/user", "mnt"]:
        (tree / name).mkdir(parents=True)
    os.chown(tree / "home/user", 1000, 1000)
    (tree / "tmp").chmod(0o1777)
    program = shutil.which("busybox")
    assert program
    shutil.copy(program, tree / "bin/busybox")
    run("chroot", tree, "/bin/busybox", "--install", "-s", "/bin")
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    for name in ("subuid", "subgid"):
        (tree / "etc" / name).write_text("user:100000:65536\n")
    library, site = Path(sysconfig.get_path("stdlib")), tree / "site"
    ignored = shutil.ignore_patterns(*_LEFT_OUT)
    shutil.copytree(library, tree / library.relative_to("/"), symlinks=True, ignore=ignored)
    for name in ("imagetool", "registry_server"):
        shutil.copytree(CHECKOUT / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "tests/support/guestcommands.py", site)
    for file, place in _packages():
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, site / place)
    run(sys.executable, "-m", "compileall", "-q", site)
    for name in (os.path.realpath(sys.executable), "runc", "newuidmap", "newgidmap"):
        if found := shutil.which(name):
            _copy(Path(found), tree)
    for file in [*tree.rglob("*.so"), *tree.glob("usr/*bin/*"), Path(os.path.realpath(sys.executable))]:
        for line in run("ldd", file, check=None).stdout.splitlines():
            for library in map(Path, re.findall(r"(/\S+) \(0x", line)):
                _copy(library, tree)
    shutil.copytree(busybox_base, tree / "store", symlinks=True)


def _copy(file: Path, tree: Path) -> None:
    place = tree / file.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        shutil.copy2(file, place)


def _packages() -> Iterator[tuple[Path, str]]:
    """Yield the files of the packages that the program may import, but those of the server and of descriptions."""
    waiting, seen = ["requests", "zstandard", "isal", "zlib-ng"], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and path.is_file():
                yield path, str(file)
        required = [text for text in distribution.requires or () if "extra ==" not in text]
        waiting += [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required]


def boot(disk: Path, kernel: Kernel, job: str, folder: Path) -> str:
    """Start a machine, run a shell script in it and return what it said; a job that does not come to its end fails."""
    need("qemu-system-x86_64", "cpio")
    tree = folder / "initrd"
    for name in ["bin", "dev", "proc", "sys", "root"]:
        (tree / name).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), tree / "bin/busybox")
    modules = kernel.modules("virtio_pci", "virtio_blk", "overlay")
    for name, data in modules.items():
        (tree / f"{name}.ko").write_bytes(data)
    (tree / "modules").write_text("\n".join(modules))
    (tree / "job").write_text(_PREPARED.replace("{python}", os.path.realpath(sys.executable)) + job)
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    names = subprocess.run(["find", "."], cwd=tree, capture_output=True, check=True).stdout
    with open(folder / "initrd.cpio", "wb") as archive:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names, stdout=archive, check=True)
    machine = ["-M", "pc,accel=tcg", "-smp", "2", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot"]
    drive = ["-drive", f"file={disk},format=raw,if=virtio,snapshot=on"]
    files = ["-kernel", kernel.image, "-initrd", folder / "initrd.cpio", "-append", "console=ttyS0 loglevel=1 panic=-1"]
    console = folder / "console"
    run("qemu-system-x86_64", *machine, "-serial", f"file:{console}", *drive, *files)
    said, done, _ = console.read_text().replace("\r\n", "\n").partition("the job is done\n")
    assert done, said
    return said
