"""Other programs behind the same protocol: what they have in common with ours, where they differ, what they refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.errors import BuildError, HostError, Unsupported, UsageError
from imagetool.runtime.ceilings import Ceilings, Ulimit
from imagetool.runtime.executors import ChrootExecutor, Executor, executor_of
from imagetool.runtime.network import NONE
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.security import Security
from imagetool.runtime.spec import Mount
from imagetool.runtime.users import User
from tests.integration.systems.conftest import SAID, SAID_AS_APP, STATUS, App
from tests.support.command import imagetool
from tests.support.containers import full_root, overlay, run, sh, tree
from tests.support.users import NOBODY, as_user, users_folder

pytestmark = [pytest.mark.root, pytest.mark.peer]

#: Name for tests -> --isolation, --runtime, and the program it needs.
PROGRAMS = {
    "runc": ("oci", "runc", "runc"),
    "crun": ("oci", "crun", "crun"),
    "bwrap": ("bwrap", None, "bwrap"),
    "nspawn": ("nspawn", None, "systemd-nspawn"),
    "lxc": ("lxc", None, "lxc-execute"),
    "chroot": ("chroot", None, "sh"),
}
every = pytest.mark.parametrize("executor", PROGRAMS, indirect=True)


@pytest.fixture(scope="module")
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    isolation, runtime, program = PROGRAMS[request.param]
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    with executor_of(isolation, runtime) as started:
        yield started


@every
def test_a_command_runs_as_described(executor: Executor, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 198.51.100.1\n")
    mounts = [Mount("/etc/resolv.conf", "bind", str(tmp_path / "resolv.conf"), ("bind", "ro"))]
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    script = "echo out $WORD; echo err >&2; cat /etc/resolv.conf; pwd; umask; echo made > /new; exit 7"
    ran = sh(executor, root, script, mounts=mounts, env={"WORD": "a 'b' $c"}, cwd="/etc")
    assert (ran.code, ran.err) == (7, b"err\n")
    assert ran.text == "out a 'b' $c\nnameserver 198.51.100.1\n/etc\n0022\n"
    assert list(tree(root.upper)) == ["new"], "nothing else is left: no mount point, no file of the program"


@every
def test_a_step_that_does_nothing_leaves_nothing(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    before = tree(tmp_path / "lower")
    assert run(executor, root, "true").code == 0
    assert tree(root.upper) == {}
    assert tree(tmp_path / "lower") == before


@every
def test_a_readonly_root_is_readonly_and_volumes_are_not(executor: Executor, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    mounts = [
        Mount("/data", "bind", str(shared), ("bind", "rw")),
        Mount("/mem", "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=1777", "size=1m")),
    ]
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    script = "touch /x /etc/y /etc/passwd; touch /data/file /mem/file /dev/shm/file && echo fine"
    ran = sh(executor, root, script, mounts=mounts, readonly=True)
    assert ran.err.count(b"Read-only file system") == 3
    assert (ran.code, ran.text) == (0, "fine\n")
    assert os.listdir(shared) == ["file"]
    assert tree(root.upper) == {}


@every
def test_who_may_nothing_has_no_capability(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    for kept, seen in (((), "0000000000000000"), (("CAP_NET_RAW",), "0000000000002000")):
        ran = sh(executor, root, "grep CapEff /proc/self/status", security=Security(kept))
        assert ran.text.split() == ["CapEff:", seen]


@every
def test_what_is_kept_in_memory_has_the_size_and_the_mode_it_is_given(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    mounts = [
        Mount("/one", "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=1777", "size=1m")),
        Mount("/part", "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=700", "size=1%")),
    ]
    script = "df -k /one /part /dev/shm | tail -n +2 | tr -s ' ' | cut -d ' ' -f 2; stat -c %a /one /part /dev/shm"
    ran = sh(executor, root, script, mounts=mounts, ceilings=Ceilings(shm_size=2 << 20))
    one, part, shm, *modes = ran.text.split()
    assert (one, shm, modes) == ("1024", "2048", ["1777", "700", "1777"])
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 10
    assert memory // 100 - 4 <= int(part) <= memory // 100 + 4


@every
def test_what_is_kept_in_memory_is_readonly_when_it_says_so(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    mounts = [Mount("/mem", "tmpfs", "tmpfs", ("nosuid", "nodev", "ro", "size=1m"))]
    ran = sh(executor, root, "touch /mem/x; touch /tmp/x && echo fine", mounts=mounts)
    assert b"/mem/x: Read-only file system" in ran.err
    assert ran.text == "fine\n"


@pytest.mark.parametrize("executor", ["runc", "crun", "nspawn", "lxc", "chroot"], indirect=True)
def test_what_is_kept_in_memory_is_not_executed_when_it_says_so(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    mounts = [Mount("/mem", "tmpfs", "tmpfs", ("nosuid", "nodev", "noexec", "size=8m"))]
    ran = sh(executor, root, "cp /bin/busybox /mem/true && /mem/true || echo refused", mounts=mounts)
    assert ran.text == "refused\n"


@every
def test_arguments_arrive_whole(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    words = ["two words", "it's", '"quoted"', "", "$HOME", "back\\slash", "new\nline", "--option", "x" * 5000]
    ran = run(executor, root, "/bin/sh", "-c", 'for a; do echo "<$a>"; done', "sh", *words)
    assert ran.text == "".join(f"<{word}>\n" for word in words)


@every
def test_a_program_that_is_not_there_gives_127(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    assert run(executor, root, "no-such-program").code == 127
    assert tree(root.upper) == {}


@every
def test_a_program_that_cannot_be_executed_gives_126(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    assert run(executor, root, "/etc/passwd").code == 126


@every
def test_a_program_that_a_mount_brings_is_run(executor: Executor, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho from a mount\n")
    script.chmod(0o755)
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    ran = run(executor, root, "/opt/script", mounts=[Mount("/opt/script", "bind", str(script), ("bind", "ro"))])
    assert (ran.code, ran.text) == (0, "from a mount\n")
    assert tree(root.upper) == {}


@pytest.mark.parametrize("executor", ["runc", "crun", "nspawn", "lxc", "chroot"], indirect=True)
def test_another_user_with_groups(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    ran = sh(
        executor, root, "id -u; id -g; touch /tmp/mine; grep Groups /proc/self/status", user=User(1000, 77, (5, 6))
    )
    assert ran.text.split() == ["1000", "77", "Groups:", "5", "6"]
    status = (root.upper / "tmp/mine").stat()
    assert (status.st_uid, status.st_gid) == (1000, 77)


@pytest.mark.parametrize("executor", ["bwrap"], indirect=True)
def test_bubblewrap_refuses_other_users_than_root(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    with pytest.raises(Unsupported, match="can run root only"):
        sh(executor, root, "id", user=User(1000, 1000))


@pytest.mark.parametrize("executor", ["runc", "crun", "bwrap", "lxc", "nspawn", "chroot"], indirect=True)
def test_privileges_are_few_and_calls_filtered(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    ran = sh(
        executor,
        root,
        "grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp 2>/dev/null || echo no mount",
    )
    assert ran.text.split() == ["CapEff:", "00000000800405fb", "Seccomp:", "2", "no", "mount"]


@pytest.mark.parametrize("executor", ["runc", "crun", "bwrap", "nspawn", "lxc"], indirect=True)
def test_without_network_there_is_loopback_only_and_it_is_up(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    ran = sh(executor, root, "ip link | grep -E '^[0-9]+: '; hostname", network=NONE)
    first, *others, name = ran.text.splitlines()
    assert first.startswith("1: lo: <LOOPBACK,UP")
    assert (others, name) == ([], "box")


@pytest.mark.parametrize("executor", ["runc", "crun", "bwrap", "nspawn", "lxc"], indirect=True)
def test_other_processes_are_out_of_sight(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    ran = sh(executor, root, "ls /proc | grep -c '^[0-9]'")
    assert int(ran.text) <= 5


@every
def test_a_limit_of_processes_holds(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do sleep 10 & done; wait"
    ran = sh(executor, root, script, sandbox=Sandbox(ceilings=Ceilings(pids=12)))
    assert b"fork" in ran.err, "the shell could not start them all"


@pytest.mark.parametrize("executor", ["bwrap", "nspawn", "lxc"], indirect=True)
def test_ulimits_are_refused_and_not_left_out(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    with pytest.raises(Unsupported, match="--ulimit"):
        sh(executor, root, "true", sandbox=Sandbox(ceilings=Ceilings(ulimits=(Ulimit("nofile", 5, 5),))))


@pytest.mark.parametrize("executor", ["chroot"], indirect=True)
def test_chroot_refuses_a_network_of_its_own(executor: Executor, tmp_path: Path) -> None:
    root = overlay(tmp_path / "run", full_root(tmp_path / "lower"))
    with pytest.raises(Unsupported, match="shares the host's network"):
        sh(executor, root, "true", network=NONE)


@every
@pytest.mark.parametrize("place", ["dev", "proc", "sys"])
def test_a_hostile_root_leads_nobody_outside(executor: Executor, tmp_path: Path, place: str) -> None:
    """CVE-2021-30465 and its successors: runtimes of today make files where an image's /dev leads."""
    lower, canary = full_root(tmp_path / "lower"), tmp_path / "canary"
    canary.mkdir()
    (lower / place).rmdir()
    (lower / place).symlink_to(canary)
    if isinstance(executor, ChrootExecutor):  # mounts by descriptors, as ours does, and where the link leads inside
        run(executor, overlay(tmp_path / "run", lower), "true")
    else:
        with pytest.raises(BuildError, match=f"/{place}"):
            run(executor, overlay(tmp_path / "run", lower), "true")
    assert list(canary.iterdir()) == []


@pytest.mark.parametrize("executor", ["nspawn"], indirect=True)
@pytest.mark.parametrize("place", ["run", "tmp"])
def test_what_nspawn_mounts_over_must_be_real_directories(executor: Executor, tmp_path: Path, place: str) -> None:
    lower, canary = full_root(tmp_path / "lower"), tmp_path / "canary"
    canary.mkdir()
    (lower / place).rmdir()
    (lower / place).symlink_to(canary)
    with pytest.raises(BuildError, match=f"/{place} (is a symbolic link|of the image)"):
        run(executor, overlay(tmp_path / "run", lower), "true")
    assert list(canary.iterdir()) == []


@every
def test_a_mount_point_behind_a_link_stays_inside(executor: Executor, tmp_path: Path) -> None:
    lower, canary = full_root(tmp_path / "lower"), tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("of the host\n")
    (lower / "mnt").symlink_to(canary)
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown/x").write_text("shown\n")
    mounts = [Mount("/mnt", "bind", str(tmp_path / "shown"), ("rbind", "ro"))]
    ran = sh(executor, overlay(tmp_path / "run", lower), "cat /mnt/x", mounts=mounts)
    assert (ran.code, ran.text) == (0, "shown\n"), ran.err
    assert [path.name for path in canary.iterdir()] == ["file"]


@every
def test_the_host_is_as_before(executor: Executor, tmp_path: Path) -> None:
    def places() -> set[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return {line.split()[4] for line in lines if "imagetool-bundle" in line or "systemd/nspawn" in line}

    before = places()
    run(executor, overlay(tmp_path / "run", full_root(tmp_path / "lower")), "true")
    assert places() == before


@pytest.mark.parametrize(
    ("isolation", "runtime", "said"),
    [
        ("docker", None, "there are auto, embedded, oci"),
        ("embedded", "runc", "takes no --runtime"),
        ("chroot", "runc", "takes no --runtime"),
    ],
)
def test_words_that_mean_nothing_are_refused(isolation: str, runtime: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        executor_of(isolation, runtime)


@pytest.mark.parametrize("isolation", ["oci", "bwrap", "nspawn", "lxc"])
def test_what_is_not_installed_is_named(isolation: str) -> None:
    with pytest.raises(HostError, match="no-such-program"), executor_of(isolation, "no-such-program"):
        pass


@pytest.mark.parametrize("isolation", ["oci", "nspawn", "lxc", "chroot"])
def test_images_run_under_each(app: App, isolation: str) -> None:
    done = imagetool("run", "--isolation", isolation, "-u", "app", app.name, root=app.root, check=False)
    assert (done.stdout, done.returncode) == (SAID_AS_APP, STATUS), done.stderr
    assert ("isolates little" in done.stderr) == (isolation == "chroot")


def test_images_run_under_bubblewrap(app: App) -> None:
    if not shutil.which("bwrap"):
        pytest.skip("needs bwrap")
    done = imagetool("run", "--isolation", "bwrap", app.name, root=app.root, check=False)
    assert (done.stdout, done.returncode) == (SAID, STATUS), done.stderr


@pytest.mark.parametrize("isolation", ["oci", "bwrap", "nspawn", "lxc", "chroot"])
def test_every_isolation_builds_the_same_layers(app: App, tmp_path: Path, isolation: str) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {app.name}\nRUN echo built > /srv/app/built && mkdir /srv/more && chmod 700 /srv/more\n"
        "RUN <<end\nset -e\necho heredoc >> /srv/app/built\nend\n"
    )
    ids = [
        imagetool("build", "--no-cache", "--isolation", kind, tmp_path, root=app.root).stdout
        for kind in ("embedded", isolation)
    ]
    assert ids[0] == ids[1]


def test_a_runtime_alone_is_an_oci_runtime(app: App) -> None:
    path = shutil.which("crun")
    if path is None:
        pytest.skip("needs crun")
    done = imagetool("run", "--runtime", path, app.name, root=app.root, check=False)
    assert (done.stdout, done.returncode) == (SAID, STATUS), done.stderr


def test_chroot_is_for_root() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            try:
                ChrootExecutor().__enter__()
            except HostError as error:
                os._exit(42 if "needs root" in str(error) else 1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42


@pytest.mark.parametrize(
    ("options", "program"),
    [(("--isolation", "oci"), "runc"), (("--runtime", "crun"), "crun"), (("--isolation", "bwrap"), "bwrap")],
)
def test_an_ordinary_user_has_these_too(app: App, options: tuple[str, str], program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"needs {program}")
    done = _as_nobody(app, *options)
    assert (done.stdout, done.returncode) == (SAID, STATUS), done.stderr


@pytest.mark.parametrize("isolation", ["nspawn", "lxc", "chroot"])
def test_what_needs_root_says_so_to_an_ordinary_user(app: App, isolation: str) -> None:
    done = _as_nobody(app, "--isolation", isolation)
    assert done.returncode == 9
    assert f"--isolation {isolation} needs root" in done.stderr


def _as_nobody(app: App, *options: str) -> subprocess.CompletedProcess[str]:
    with users_folder() as folder:
        (folder / "store").mkdir()
        shutil.copytree(app.root / "layout", folder / "store/layout", symlinks=True)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(folder)], check=True)
        command = [sys.executable, "-m", "imagetool", "--root", folder / "store", "run", *options, app.name]
        return as_user(command, folder=folder, subordinate=True)


#: The classic way out of chroot(2): keep a directory open outside of a second one, go up from it.
_WAY_OUT = """
import os
before, outside = os.stat("/").st_dev, os.open("/", os.O_RDONLY)
os.mkdir("/inner")
os.chroot("/inner")
os.fchdir(outside)
for _ in range(64):
    os.chdir("..")
os.chroot(".")
print("inside" if os.stat("/").st_dev == before and os.path.isdir("/inner") else "outside")
"""


def test_no_dots_lead_out_of_the_changed_root(tmp_path: Path) -> None:
    with executor_of("chroot") as executor:
        ran = run(executor, overlay(tmp_path / "run", Path("/")), "/usr/bin/python3", "-I", "-c", _WAY_OUT)
    assert (ran.code, ran.text) == (0, "inside\n"), ran.err
