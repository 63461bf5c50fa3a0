"""Ways out of a container that others had, tried on ours; a canary tree on the host must stay as it is.

One test a flaw, named after its CVE. What concerns unpacking is in layer.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.errors import BuildError, ImagetoolError
from imagetool.runtime.ceilings import Ceilings
from imagetool.runtime.executors import EXECUTORS, Executor, RuncExecutor
from imagetool.runtime.network import HOST, NONE, Network
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.spec import Mount, RuntimeSpec, build_step_spec
from imagetool.runtime.users import User, resolve_user
from tests.support.command import imagetool
from tests.support.containers import VARIANTS, Ran, busybox_root, full_root, overlay, run, sh, tree, variant

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with variant(request.param) as started:
        yield started


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A tree of the host that any escape in the test would change; it must not."""
    folder = tmp_path / "canary"
    (folder / "sub").mkdir(parents=True)
    for name in ("file", "sub/file", "passwd", "hosts", "null"):
        (folder / name).write_text("root:x:0:0::/canary:/bin/sh\n")
    before = state(folder)
    yield folder
    assert state(folder) == before


def state(folder: Path) -> dict[str, tuple[tuple[int, int], bytes]]:
    return {
        name: (status, (folder / name).read_bytes() if (folder / name).is_file() else b"")
        for name, status in tree(folder).items()
    }


def attempt(executor: Executor, root: Directory, script: str, **options: object) -> Ran | None:
    """Run a script; None when it was refused, which must be with one clear line."""
    try:
        return sh(executor, root, script, ceilings=Ceilings(timeout=20), **options)
    except ImagetoolError as refused:
        said = str(refused)
    assert said
    assert "\n" not in said
    return None


def test_cve_2024_21626_a_working_directory_through_a_leaked_descriptor(
    executor: Executor, tmp_path: Path, canary: Path
) -> None:
    root = Directory(full_root(tmp_path / "root"))
    leaked = os.open(canary, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(leaked, True)
    try:
        ran = run(executor, root, "ls", "/proc/self/fd")
        assert set(ran.text.split()) <= {"0", "1", "2", "3"}  # 3 is the directory that ls reads
        for number in range(3, 9 if isinstance(executor, RuncExecutor) else 65):
            for place in (f"/proc/self/fd/{number}", f"/proc/self/fd/{number}/../../.."):
                ended = attempt(executor, root, "pwd; ls; touch escaped", cwd=place)
                assert ended is None or "canary" not in ended.text
    finally:
        os.close(leaked)


def test_cve_2019_5736_overwriting_the_interpreter(executor: Executor, tmp_path: Path) -> None:
    before = hashlib.sha256(Path(sys.executable).read_bytes()).digest()
    folder = full_root(tmp_path / "root")
    (folder / "bin/evil").symlink_to("/proc/self/exe")
    (folder / "bin/script").write_text("#!/proc/self/exe\n")
    (folder / "bin/script").chmod(0o755)
    for name in ("/bin/evil", "/bin/script", "/proc/self/exe"):
        try:
            ran = run(executor, Directory(folder), name, "-c", "print('escaped')")
        except ImagetoolError:
            continue
        assert ran.code != 0 or isinstance(executor, RuncExecutor)
        assert b"escaped" not in ran.out
    script = "for p in /proc/[0-9]*/exe; do (echo x > $p) 2>&1; (exec 9<>$p) 2>&1; done; ls -l /proc/1/ 2>&1; true"
    run(executor, Directory(folder), "/bin/sh", "-c", script)
    assert hashlib.sha256(Path(sys.executable).read_bytes()).digest() == before


@pytest.mark.parametrize("way", ["absolute", "relative", "climbing", "file"])
@pytest.mark.parametrize("name", ["dev", "proc", "sys", "etc"])
def test_cve_2026_41579_an_images_system_directory_is_a_link_to_the_host(
    executor: Executor, tmp_path: Path, canary: Path, name: str, way: str
) -> None:
    folder = busybox_root(tmp_path / "root")
    target = {
        "absolute": str(canary),
        "relative": f"..{canary}",
        "climbing": "../" * 20 + str(canary)[1:],
        "file": str(canary / "file"),
    }[way]
    (folder / name).symlink_to(target)
    mounts = [Mount("/etc/hosts", "bind", str(tmp_path / "hosts"), ("bind", "ro"))]
    (tmp_path / "hosts").write_text("x\n")
    attempt(executor, Directory(folder), "echo x > /dev/null; touch /dev/x /etc/x; true", mounts=mounts)


def test_cve_2021_30465_mount_points_that_another_container_swaps(tmp_path: Path, canary: Path) -> None:
    folder = full_root(tmp_path / "root")
    source = tmp_path / "source"
    source.mkdir()
    (folder / "swap").mkdir()
    with EXECUTORS["embedded"]() as executor:
        racer = threading.Thread(
            target=sh,
            args=(
                executor,
                Directory(folder),
                f"while [ ! -e /stop ]; do mv /swap /away; ln -s {canary} /swap; rm -f /swap; mv /away /swap; done",
            ),
            kwargs={"ceilings": Ceilings(timeout=60)},
        )
        racer.start()
        try:
            for number in range(40):
                mounts = [
                    Mount(f"/swap/{number}", "bind", str(source), ("bind",)),
                    Mount("/swap/../swap/sub", "tmpfs", "tmpfs"),
                ]
                attempt(executor, Directory(folder), "touch /swap/sub/x", mounts=mounts)
        finally:
            (folder / "stop").touch()
            racer.join()


@pytest.mark.parametrize("target", ["/link", "/link/new", "/link/sub", "/up/../link/x", "/deep/link/file"])
def test_cve_2023_27561_mount_points_below_links_stay_inside(
    executor: Executor, tmp_path: Path, canary: Path, target: str
) -> None:
    folder = full_root(tmp_path / "root")
    (folder / "link").symlink_to(canary)
    (folder / "deep").mkdir()
    (folder / "deep/link").symlink_to("../" * 30 + str(canary)[1:])
    for kind, source in (("tmpfs", "tmpfs"), ("bind", str(tmp_path))):
        mount = Mount(target, kind, source, ("bind",) if kind == "bind" else ())
        attempt(executor, Directory(folder), f"touch {target}/x", mounts=[mount])
    (tmp_path / "x").unlink(missing_ok=True)


def test_cve_2025_31133_a_null_device_of_the_image_is_never_bound(
    executor: Executor, tmp_path: Path, canary: Path
) -> None:
    folder = full_root(tmp_path / "root")
    (folder / "dev/null").symlink_to(canary / "null")
    (folder / "dev/console").symlink_to(canary / "file")
    (folder / "dev/pts").symlink_to(canary)
    script = "echo x > /proc/kcore; echo h > /proc/sysrq-trigger; echo x > /proc/sys/kernel/core_pattern; echo $?"
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    ran = attempt(executor, Directory(folder), f"{script}; cat /proc/kcore | wc -c; stat -c %t:%T /dev/null")
    assert ran is not None
    assert ran.text.split() == ["1", "0", "1:3"]
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_cve_2024_23652_a_stub_that_the_step_replaces_is_not_cleaned_up_on_the_host(
    executor: Executor, tmp_path: Path, canary: Path
) -> None:
    (tmp_path / "source").write_text("x")
    folder = full_root(tmp_path / "root")
    bind = ("bind", "ro")
    mounts = [Mount(f"/{name}/sub/file", "bind", str(tmp_path / "source"), bind) for name in ("stub", "other")]
    replaced = threading.Event()

    def replace(_stream: int, _data: bytes) -> None:
        """Do from outside what a step may find a way to: put links where the mount points were made."""
        (folder / "stub").rename(folder / "gone")
        (folder / "stub").symlink_to(canary)
        (folder / "other/sub").rename(folder / "gone2")
        (folder / "other/sub").symlink_to(canary / "sub")
        replaced.set()
        (folder / "go").touch()

    spec = build_step_spec(
        args=["sh", "-c", "echo x; until [ -e /go ]; do sleep 0.05; done"],
        env={"PATH": "/bin"},
        cwd="/",
        user=User(),
        hostname="box",
        mounts=mounts,
    )
    executor.run(spec, Directory(folder), output=replace)
    assert replaced.is_set()
    assert os.readlink(folder / "stub") == str(canary)


def test_cve_2026_57231_the_hosts_environment_is_never_taken(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "secret")
    root = Directory(full_root(tmp_path / "root"))
    spec = build_step_spec(args=["env"], env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box")
    bare = RuntimeSpec({**spec.tree, "process": {**spec.tree["process"], "env": ["PATH=/bin", "CANARY"]}})
    for given in (spec, bare):
        seen: list[bytes] = []
        try:
            executor.run(given, root, output=lambda _, data, seen=seen: seen.append(data))  # type: ignore[misc]
        except ImagetoolError:
            assert isinstance(executor, RuncExecutor)
        assert b"secret" not in b"".join(seen)


def test_cve_2022_27651_no_inheritable_and_no_ambient_capabilities(executor: Executor, tmp_path: Path) -> None:
    root = Directory(full_root(tmp_path / "root"))
    for user in (User(), User(1000, 1000)):
        ran = sh(executor, root, "grep -E 'Cap(Inh|Amb)' /proc/self/status", user=user)
        assert ran.text.split() == ["CapInh:", "0" * 16, "CapAmb:", "0" * 16]


def python_of_the_host(executor: Executor, tmp_path: Path, code: str, network: Network) -> Ran:
    root = overlay(tmp_path / "run", Path("/"))
    return run(executor, root, "/usr/bin/python3", "-I", "-c", code, network=network)


def test_cve_2020_15257_abstract_sockets_of_the_host_are_out_of_reach_without_its_network(
    executor: Executor, tmp_path: Path
) -> None:
    name = f"\0imagetool-test-{os.getpid()}"
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({name!r}); print('reached')"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen(1)
        ran = python_of_the_host(executor, tmp_path, code, NONE)
    assert ran.code == 1
    assert b"ConnectionRefusedError" in ran.err


def test_cve_2026_31431_the_kernels_crypto_and_the_hypervisor_have_no_sockets(
    executor: Executor, tmp_path: Path
) -> None:
    code = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
for family in (38, 40, 38 | 1 << 32):
    made = libc.syscall(ctypes.c_long(41), ctypes.c_long(family), ctypes.c_long(5), 0)
    print(made, errno.errorcode[ctypes.get_errno()])
for flag in (0x10000000, 0x20000, 0x40000000):
    print(libc.unshare(flag), errno.errorcode[ctypes.get_errno()])
print(libc.syscall(435, 0, 0), errno.errorcode[ctypes.get_errno()])
socket.socket(socket.AF_INET); socket.socket(socket.AF_UNIX); socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
"""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are those of x86-64")
    ran = python_of_the_host(executor, tmp_path, code, HOST)
    # runc compares with libseccomp what the profile says, in 64 bits of which the rule masks the upper half
    assert ran.text.split("\n")[:-1] == ["-1 EPERM"] * 6 + ["-1 ENOSYS"]
    assert ran.code == 0


def test_cve_2026_15809_a_home_with_a_newline_is_not_taken() -> None:
    for passwd in (b"evil:x:5:5::/a\nroot2:x:0:0::/:/bin/sh\n", b"evil:x:5:5::/a\rb:/bin/sh\n"):
        try:
            _, home = resolve_user("evil", passwd, b"")
        except BuildError:
            continue
        assert home == "/"


def dockerfile(tmp_path: Path, text: str, *options: str) -> tuple[int, str]:
    """Build a Dockerfile on busybox with a small context; return the status and what was said."""
    root, context = tmp_path / "store", tmp_path / "context"
    if not root.exists():
        context.mkdir()
        imagetool("base", "busybox", root=root)
    (context / "Dockerfile").write_text(text)
    done = imagetool("build", "-t", "x", "--progress", "plain", *options, context, root=root, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_cve_2024_1753_a_mounted_directory_of_a_stage_is_a_link_to_the_host(tmp_path: Path, canary: Path) -> None:
    text = f"""FROM busybox AS evil
RUN ln -s / /rootdir && ln -s {canary} /canary
FROM busybox
RUN --mount=type=bind,from=evil,source=/rootdir,target=/mnt,rw touch /mnt{canary}/escaped /mnt/escaped || true
"""
    dockerfile(tmp_path, text)
    again = text.replace("source=/rootdir,", "source=/canary,").replace(f"/mnt{canary}", "/mnt")
    dockerfile(tmp_path, again)
    assert not Path("/escaped").exists()


def test_cve_2024_9407_mounts_of_a_step_never_propagate(tmp_path: Path) -> None:
    for word in ("bind-propagation=shared", "propagation=rshared"):
        status, said = dockerfile(tmp_path, f"FROM busybox\nRUN --mount=type=bind,source=/,target=/m,{word} true\n")
        assert status == 1
        assert "propagation" in said


def test_cve_2024_9675_the_id_of_a_cache_leads_nowhere_else(tmp_path: Path, canary: Path) -> None:
    steps = "".join(
        f"RUN --mount=type=cache,id={name},target=/c touch /c/escaped\n"
        for name in ("../../../../.." + str(canary), str(canary), "..", ".", "a/../../b", "%2e%2e")
    )
    assert dockerfile(tmp_path, f"FROM busybox\n{steps}")[0] == 0


def test_cve_2024_9676_a_passwd_of_the_image_that_leads_elsewhere_or_hangs(tmp_path: Path, canary: Path) -> None:
    for make in (
        f"ln -s {canary}/passwd /etc/passwd",
        "mkfifo /etc/passwd",
        "mkdir /etc/passwd",
        "ln -s passwd /etc/passwd",
    ):
        text = f"FROM busybox\nRUN rm -f /etc/passwd && mkdir -p /etc && {make}\nUSER nosuch\nRUN true\n"
        status, said = dockerfile(tmp_path, text)
        assert status in (1, 6), said
        assert "canary" not in said.rpartition("imagetool:")[2] or make.startswith("ln -s /")


def test_cve_2026_55686_a_working_directory_below_a_link_is_made_inside(tmp_path: Path, canary: Path) -> None:
    text = f"FROM busybox\nRUN ln -s {canary} /link\nWORKDIR /link/x/y\nRUN touch here\n"
    dockerfile(tmp_path, text)


def test_cve_2024_23653_privileges_are_not_for_the_dockerfile_to_take(tmp_path: Path) -> None:
    status, said = dockerfile(tmp_path, "FROM busybox\nRUN --security=insecure mount -t tmpfs x /mnt\n")
    assert status != 0
    assert "insecure" in said


def test_cve_2026_44517_links_of_the_context_take_in_nothing_from_outside(tmp_path: Path, canary: Path) -> None:
    dockerfile(tmp_path, "FROM busybox\n")
    context = tmp_path / "context"
    (context / "link").symlink_to(canary)
    (context / "up").symlink_to("../canary")
    for source in ("link/file", "up/file", "../canary/file", "link/"):
        text = f"FROM busybox\nCOPY {source} /got/\nRUN ! grep -r canary /got\n"
        status, said = dockerfile(tmp_path, text, "--no-cache")
        assert status != 0 or "canary:" not in said


def test_cve_2024_23651_a_directory_that_a_parallel_stage_swaps_while_it_is_mounted(
    tmp_path: Path, canary: Path
) -> None:
    swap = f"for i in 1 2 3 4 5 6 7 8 9; do rm -rf /c/s; ln -s {canary} /c/s; rm /c/s; mkdir /c/s; done; touch /c/s/x"
    text = f"""FROM busybox AS one
RUN --mount=type=cache,id=shared,target=/c {swap}
FROM busybox AS two
RUN --mount=type=cache,id=shared,target=/c --mount=type=tmpfs,target=/c/s/t touch /c/s/t/escaped || true
FROM busybox
COPY --from=one /bin/true /one
COPY --from=two /bin/true /two
"""
    dockerfile(tmp_path, text)
