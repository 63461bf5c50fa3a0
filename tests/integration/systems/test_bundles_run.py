"""The same image under every system that Debian has: it says the same everywhere, and ends with its own status."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.systems.conftest import SAID, SAID_AS_APP, STATUS, App
from tests.support.command import imagetool
from tests.support.systems import (
    APART,
    PODMAN_RUN,
    containerd,
    dockerd,
    kernel,
    need,
    podman,
    run,
    short_folder,
    without_unified,
)
from tests.support.users import NOBODY, as_user, users_folder

pytestmark = [pytest.mark.root, pytest.mark.peer]


def test_runc_runs_the_bundle(app: App, tmp_path: Path) -> None:
    need("runc")
    bundle = app.bundle(tmp_path / "b", "oci")
    done = run("runc", "--root", tmp_path / "state", "run", "-b", bundle, app.label, check=STATUS)
    assert done.stdout == SAID


def test_runc_runs_the_bundle_as_another_user_after_it_was_moved(app: App, tmp_path: Path) -> None:
    need("runc")
    app.bundle(tmp_path / "b", "oci", "--user", "app")
    moved = (tmp_path / "b").rename(tmp_path / "elsewhere")
    done = run("runc", "--root", tmp_path / "state", "run", "-b", moved, f"{app.label}-app", check=STATUS)
    assert done.stdout == SAID_AS_APP


def test_crun_runs_the_bundle(app: App, tmp_path: Path) -> None:
    need("crun", "unshare")
    bundle = app.bundle(tmp_path / "b", "oci")
    command = ["crun", "--root", tmp_path / "state", "run", "-b", bundle, f"{app.label}-crun"]
    assert run(*without_unified(*command), check=STATUS).stdout == SAID


def test_an_ordinary_user_makes_and_runs_a_rootless_bundle(app: App) -> None:
    need("runc", "setpriv")
    with users_folder() as folder:
        shutil.copytree(app.root, folder / "store", symlinks=True)
        run("chown", "-R", f"{NOBODY}:{NOBODY}", folder / "store")
        program = [sys.executable, "-m", "imagetool", "--root", folder / "store"]
        made = as_user([*program, "bundle", app.name, folder / "b", "--for", "oci"], folder=folder)
        assert made.returncode == 0, made.stderr
        command = ["runc", "--root", folder / "state", "run", "-b", folder / "b", app.label]
        done = as_user(command, folder=folder)
    assert (done.stdout, done.returncode) == (SAID, STATUS), done.stderr


def test_systemd_nspawn_takes_the_directory_and_its_settings(app: App, tmp_path: Path) -> None:
    need("systemd-nspawn")
    bundle = app.bundle(tmp_path / "b", "nspawn")
    flags = ["--settings=trusted", "--register=no", "--keep-unit", "--console=pipe"]
    done = run("systemd-nspawn", "-q", "-D", bundle / app.label, *flags, check=STATUS)
    assert done.stdout == SAID


@pytest.mark.parametrize(("options", "said"), [((), SAID), (("--user", "app"), SAID_AS_APP)])
def test_systemd_nspawn_takes_the_bundle(app: App, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    need("systemd-nspawn")
    bundle = app.bundle(tmp_path / "b", "nspawn-oci", *options)
    flags = ["--register=no", "--keep-unit", "--console=pipe", "--no-new-privileges=yes", f"--machine={app.label}"]
    done = run("systemd-nspawn", "-q", f"--oci-bundle={bundle}", *flags, check=STATUS)
    assert done.stdout == said


@pytest.mark.parametrize(("options", "said"), [((), SAID), (("--user", "app"), SAID_AS_APP)])
def test_lxc_executes_the_bundle(app: App, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    need("lxc-execute")
    bundle = app.bundle(tmp_path / app.label, "lxc", *options)
    command = ["lxc-execute", "-P", tmp_path, "-n", app.label, "-f", bundle / "config"]
    assert run(*command, check=STATUS).stdout == said


@pytest.mark.parametrize(("options", "said"), [((), SAID), (("--user", "app:77"), SAID_AS_APP.replace(":1234", ":77"))])
def test_chroot_starts_the_directory(app: App, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    bundle = app.bundle(tmp_path / "b", "chroot", *options)
    assert run(bundle / "run", check=STATUS).stdout == said
    assert run(bundle / "run", "/bin/echo", "another command").stdout == "another command\n"


def test_podman_loads_and_runs_the_archive(app: App, tmp_path: Path) -> None:
    need("podman", "runc")
    imagetool("save", app.name, "-o", tmp_path / "app.tar", root=app.root)
    with short_folder() as folder:
        run(*podman(folder), "load", "-i", tmp_path / "app.tar")
        assert run(*podman(folder), *PODMAN_RUN, app.name, check=STATUS).stdout == SAID


def test_docker_loads_and_runs_the_archive(app: App, tmp_path: Path) -> None:
    need("dockerd", "docker", "containerd", "runc")
    archive = app.bundle(tmp_path / "app.tar", "docker")
    with short_folder() as folder, dockerd(folder) as host:
        assert app.name in run("docker", "-H", host, "load", "-i", archive).stdout
        done = run("docker", "-H", host, "run", "--rm", "--network", "none", app.name, check=STATUS)
        assert done.stdout == SAID
        config = json.loads(run("docker", "-H", host, "inspect", app.name).stdout)[0]["Config"]
    assert config["Labels"] == {"org.example.note": "a label"}


def test_containerd_imports_and_runs_the_archive(app: App, tmp_path: Path) -> None:
    need("containerd", "ctr", "runc")
    archive = app.bundle(tmp_path / "app.tar", "containerd")
    with short_folder() as folder, containerd(folder) as socket:
        ctr = ["ctr", "-a", socket]
        run(*ctr, "images", "import", archive)
        assert run(*ctr, "images", "ls", "-q").stdout.split() == [app.name]
        # ctr takes the arguments of its command line for all of them, so it is given the image's own.
        done = run(*ctr, "run", "--rm", app.name, app.label, check=STATUS)
    assert done.stdout == SAID


def test_containers_storage_takes_the_layout_for_crio(app: App, tmp_path: Path) -> None:
    """CRI-O is not in Debian: its store is containers-storage, which podman reads too."""
    need("skopeo", "podman", "runc")
    bundle = app.bundle(tmp_path / "b", "crio")
    image = json.loads((bundle / "container.json").read_text())["image"]["image"]
    with short_folder() as folder:
        storage = f"containers-storage:[overlay@{folder / 'root'}+{folder / 'run'}]{image}"
        run(*APART, "skopeo", "copy", "-q", f"oci:{bundle / 'layout'}:{image}", storage)
        assert run(*podman(folder), *PODMAN_RUN, image, check=STATUS).stdout == SAID


def test_the_root_filesystem_for_kata_boots_as_a_virtual_machine(app: App, tmp_path: Path) -> None:
    """Kata itself is not in Debian: the same root filesystem is booted under QEMU, without hardware help."""
    need("qemu-system-x86_64", "cpio")
    bundle = app.bundle(tmp_path / "b", "kata")
    process = json.loads((bundle / "config.json").read_text())["process"]
    rootfs = bundle / "rootfs"
    (rootfs / "environment").write_bytes(b"\0".join(entry.encode() for entry in [*process["env"], *process["args"]]))
    (rootfs / "init").write_text(
        "#!/bin/busybox sh\n/bin/busybox mount -t proc proc /proc\n"
        f"cd {process['cwd']} && /bin/busybox xargs -0 -n 100 /bin/busybox env -i < /environment\n"
        "echo status $? && /bin/busybox poweroff -f\n"
    )
    (rootfs / "init").chmod(0o755)
    names = subprocess.run(["find", "."], cwd=rootfs, capture_output=True, check=True).stdout
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=rootfs, input=names, capture_output=True)
    (tmp_path / "initrd").write_bytes(gzip.compress(archive.stdout, 1))
    machine = ["-M", "pc,accel=tcg", "-m", "256", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]
    files = [
        "-kernel",
        str(kernel().image),
        "-initrd",
        str(tmp_path / "initrd"),
        "-append",
        "console=ttyS0 quiet loglevel=1 panic=-1",
    ]
    said = run("qemu-system-x86_64", *machine, *files).stdout.replace("\r\n", "\n")
    assert SAID in said
    assert "status 123" in said, "xargs gives 123 when the command ends with anything but 0"
