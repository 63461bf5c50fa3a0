"""The network of containers: what they reach, what they do not, and that no helper outlives them."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagetool.errors import HostError
from imagetool.runtime.executors import EmbeddedExecutor, Executor, executor_of
from imagetool.runtime.network import HOST, NONE, Network, choose, network_of
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.security import DEFAULT_CAPABILITIES, Security
from imagetool.runtime.spec import Mount
from tests.support.command import imagetool
from tests.support.containers import (
    NOBODY,
    VARIANTS,
    full_root,
    helpers,
    open_files,
    overlay,
    run,
    sh,
    shared_folder,
    unprivileged,
)

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[3]
HELPERS = ("slirp4netns", "pasta")
#: An address of the network namespace that stands for the host; not on its loopback network.
OUTSIDE = "203.0.113.1"
CANARY = b"canary\n"
WARNING = "containers use the host's network"


@pytest.fixture(params=["embedded", "mapped"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def executor(kind: str, host: None) -> Iterator[Executor]:
    with VARIANTS[kind]() as started:
        yield started


@pytest.fixture(params=HELPERS)
def network(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    """Return the default network with one helper installed."""
    return installed(request.param, tmp_path, monkeypatch)


def installed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    program = shutil.which(name)
    if program is None or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip(f"needs {name} and /dev/net/tun")
    folder = tmp_path / "programs"
    folder.mkdir()
    for path in Path(program).parent.glob(f"{name}*"):  # pasta becomes pasta.avx2
        (folder / path.name).symlink_to(path)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(folder))
        choice = choose()
    assert choice.lacking == ""
    return choice.network


@pytest.fixture
def host() -> Iterator[None]:
    """Put this thread, and what it starts, in a network namespace with an address and a default route."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(ctypes.c_int(0x40000000)) == 0
        for words in (
            "link set lo up",
            f"address add {OUTSIDE}/32 dev lo",
            "link add name v0 type veth",
            "link set v0 up",
            "address add 198.51.100.2/24 dev v0",
            "route add default via 198.51.100.1",
        ):
            subprocess.run(["busybox", "ip", *words.split()], check=True)
        yield
    finally:
        libc.setns(before, 0x40000000)
        os.close(before)


@contextmanager
def greeter(address: str, family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """Run a server that greets whoever connects; yield its port. It is where this thread is."""
    with socket.socket(family) as server:
        server.bind((address, 0) if family == socket.AF_INET else address)
        server.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:  # closed
                    return
                with client:
                    client.sendall(CANARY)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1] if family == socket.AF_INET else 0
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def reach(address: str, port: int) -> str:
    return f"nc -w 3 {address} {port} </dev/null 2>/dev/null || echo unreachable"


def root_in(folder: Path) -> Directory:
    return Directory(full_root(folder / "root"))


def started() -> list[str]:
    """Return the helpers that serve containers of this process."""
    return [name for zygote in helpers() for name in descendants(zygote).values() if name in HELPERS]


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below another, with the names of their programs."""
    found: dict[int, str] = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found[child] = (
                    Path(f"/proc/{child}/comm").read_text().strip().partition(".")[0].replace("passt", "pasta")
                )
                found |= descendants(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def test_the_default_network_has_an_interface_a_route_and_a_way_out(
    executor: Executor, network: Network, tmp_path: Path
) -> None:
    script = "ip -o -4 addr; ip route; ls /proc/self/fd | wc -l; "
    with greeter(OUTSIDE) as port:
        # Some versions of pasta do not always hand on the end of a connection, for which nc waits.
        way_out = f"busybox timeout 8 nc {OUTSIDE} {port} </dev/null | head -n 1"
        ran = sh(executor, root_in(tmp_path), script + way_out, network=network)
    *lines, descriptors, answer = ran.text.splitlines()
    assert any(" lo " not in line and " inet " in line for line in lines), ran.text
    assert any(line.startswith("default via ") for line in lines)
    assert int(descriptors) == 4  # the three, and the one of ls
    assert answer == "canary"
    assert started() == [os.path.basename(network.helper[0])]  # it waits for the next container


def test_what_listens_on_the_hosts_loopback_is_out_of_reach(
    executor: Executor, network: Network, tmp_path: Path
) -> None:
    root, name = root_in(tmp_path), f"imagetool-canary-{os.getpid()}"
    with greeter("127.0.0.1") as port, greeter(f"\0{name}", socket.AF_UNIX):
        gateway = "$(ip route | grep default | { read a b c d; echo $c; })"
        places = ("127.0.0.1", "10.0.2.2", "10.0.2.3", gateway)
        script = f"grep -c {name} /proc/net/unix; " + "; ".join(reach(place, port) for place in places)
        ran = sh(executor, root, script, network=network)
        shown = sh(executor, root, f"grep -c {name} /proc/net/unix; {reach('127.0.0.1', port)}", network=HOST)
    assert ran.text.split() == ["0", *["unreachable"] * len(places)]
    assert shown.text.split()[-1] == "canary"
    assert shown.text.split()[0] != "0"


def test_none_is_a_loopback_interface_and_host_is_the_hosts(executor: Executor, tmp_path: Path) -> None:
    root = root_in(tmp_path)
    assert sh(executor, root, "ip -o link | wc -l", network=NONE).text.strip() == "1"
    there = os.readlink("/proc/thread-self/ns/net")
    assert sh(executor, root, "readlink /proc/self/ns/net", network=HOST).text.strip() == there
    assert sh(executor, root, "readlink /proc/self/ns/net", network=NONE).text.strip() != there


def test_a_helper_that_fails_is_an_error_with_what_it_said(executor: Executor, tmp_path: Path) -> None:
    root = root_in(tmp_path)
    broken = Network(own=True, helper=("/bin/sh", "-c", "echo no way >&2; exit 3"))
    with pytest.raises(HostError, match="has no network: sh ended: no way; try --network host or none"):
        sh(executor, root, "true", network=broken)
    with pytest.raises(HostError, match="nothing-there ended: No such file"):
        sh(executor, root, "true", network=Network(own=True, helper=("/nothing-there",)))
    assert sh(executor, root, "echo well", network=NONE).text == "well\n"


def test_a_helper_that_ends_too_early_is_told(tmp_path: Path) -> None:
    short = Network(own=True, helper=("/bin/sh", "-c", "echo 1 >&4; sleep 0.2; echo tired >&2"))
    told: list[str] = []
    with EmbeddedExecutor(warn=told.append) as executor:
        assert sh(executor, root_in(tmp_path), "sleep 1.5; echo well", network=short).text == "well\n"
        assert told == ["a container lost its network: sh ended: tired"]
        assert sh(executor, Directory(tmp_path / "root"), "echo again", network=short).text == "again\n"
    assert len(told) == 1


def test_a_helper_that_is_killed_between_containers_is_replaced(
    executor: Executor, network: Network, tmp_path: Path
) -> None:
    root = root_in(tmp_path)
    for _ in range(2):
        assert " inet " in sh(executor, root, "ip -o -4 addr | grep -v ' lo '", network=network).text
        (zygote,) = helpers()
        (helper,) = (pid for pid, name in descendants(zygote).items() if name in HELPERS)
        os.kill(helper, signal.SIGKILL)
        end = time.monotonic() + 20
        while descendants(zygote) and time.monotonic() < end:  # the one who looks after it has told that, too
            time.sleep(0.02)


#: Says which network it is in and how many sockets there are; closes a connection as a server; leaves two servers.
SERVER = """
import os, socket
print(os.readlink("/proc/self/ns/net"))
for kind in ("tcp", "udp", "unix"):
    print(len(open(f"/proc/net/{kind}").readlines()) - 1)
server = socket.socket()
server.bind(("127.0.0.1", 8080))  # without SO_REUSEADDR
server.listen()
client = socket.create_connection(("127.0.0.1", 8080))
server.accept()[0].close()
client.recv(1), client.close(), server.close()
if os.fork() == 0:
    os.setsid()
    left = socket.create_server(("127.0.0.1", 9090)), socket.socket(socket.AF_UNIX)
    left[1].bind("\\0left")
    os.close(1), os.close(2)
    os.execv("/usr/bin/sleep", ["sleep", "100"])
"""


def test_containers_one_after_another_use_one_network_and_find_nothing_in_it(
    executor: Executor, network: Network, tmp_path: Path
) -> None:
    """Not what listened, not a name of the abstract kind, and no port that a closed connection still holds."""
    said = []
    for number in range(3):
        root = overlay(tmp_path / str(number), Path("/"))
        ran = run(executor, root, "/usr/bin/python3", "-I", "-c", SERVER, network=network)
        assert ran.code == 0, ran.err
        said.append(ran.text.split())
    assert said[0][1:] == ["0", "0", "0"]
    assert said == [said[0]] * 3


def test_many_containers_leave_no_descriptor_and_one_helper(
    executor: Executor, network: Network, tmp_path: Path
) -> None:
    lower = full_root(tmp_path / "lower")
    assert run(executor, overlay(tmp_path / "first", lower), "true", network=network).code == 0
    (zygote,) = helpers()
    files, below = open_files(), descendants(zygote)
    for number in range(50):
        assert run(executor, overlay(tmp_path / str(number), lower), "true", network=network).code == 0
    assert open_files() == files
    end = time.monotonic() + 20
    # A container's end, the first's or the last's, may still be on its way when its processes are counted.
    while not descendants(zygote).items() <= below.items() and time.monotonic() < end:
        time.sleep(0.02)
    left = descendants(zygote)
    assert left.items() <= below.items()
    assert set(left.values()) & set(HELPERS)


def test_containers_at_the_same_time_have_networks_apart(executor: Executor, network: Network, tmp_path: Path) -> None:
    root, other = root_in(tmp_path), Directory(full_root(tmp_path / "other"))
    fifos = tmp_path / "shared"
    fifos.mkdir()
    for name in ("listening", "tried"):
        os.mkfifo(fifos / name)
    mounts = [Mount("/shared", "bind", str(fifos), ("bind",))]
    said: list[str] = []

    def serve() -> None:
        script = "nc -l -p 7000 </dev/null & echo x > /shared/listening; cat /shared/tried; readlink /proc/self/ns/net"
        said.append(sh(executor, root, script, network=network, mounts=mounts).text)

    server = threading.Thread(target=serve)
    server.start()
    script = f"cat /shared/listening; {reach('127.0.0.1', 7000)}; readlink /proc/self/ns/net; echo y > /shared/tried"
    client = sh(executor, other, script, network=network, mounts=mounts).text.split()
    server.join()
    assert client[:2] == ["x", "unreachable"]
    assert said[0].split()[0] == "y"
    assert said[0].split()[1] != client[2]
    assert len(started()) == 2


def test_a_container_that_may_change_its_network_has_it_alone(network: Network, tmp_path: Path, host: None) -> None:
    root = root_in(tmp_path)
    able = Security((*DEFAULT_CAPABILITIES, "CAP_NET_ADMIN"))
    change = "ip addr add 192.0.2.77/32 dev lo && ip -o -4 addr | grep -c 192.0.2.77"
    look = "ip -o -4 addr | grep -c 192.0.2.77"
    with EmbeddedExecutor() as executor:
        assert sh(executor, root, look, network=network).text == "0\n"
        assert sh(executor, root, change, network=network, security=able).text == "1\n"
        assert sh(executor, root, look, network=network, security=able).text == "0\n"
        assert sh(executor, root, look, network=network).text == "0\n"
        assert len(started()) == 1


def test_a_helper_has_few_capabilities_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    script = "grep -E 'CapBnd|NoNewPrivs' /proc/self/status >&2; ls -l /proc/self/fd >&2; env >&2; exit 1"
    report = tmp_path / "report"
    network = Network(own=True, helper=("/bin/sh", "-c", f"exec 2>{report}; {script}"))
    root = root_in(tmp_path)
    with EmbeddedExecutor() as executor, pytest.raises(HostError):
        sh(executor, root, "true", network=network)
    text = report.read_text()
    assert "NoNewPrivs:\t1" in text
    bounds = int(text.partition("CapBnd:\t")[2].split()[0], 16)
    assert bounds & 1 << 1 == 0  # CAP_DAC_OVERRIDE
    assert bounds.bit_count() <= 7
    numbers = {line.split(" -> ")[0].split()[-1] for line in text.splitlines() if " -> " in line}
    assert numbers <= {"0", "1", "2", "3", "4", "5"}  # 5 is the directory that ls reads
    assert "socket:" not in text


BUILDER = """
import sys
from pathlib import Path
from imagetool.runtime.network import choose
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.spec import build_step_spec
from imagetool.runtime.users import User
from tests.support.containers import VARIANTS

kind, root = sys.argv[1:]
spec = build_step_spec(args=["/bin/sh", "-c", "echo started; trap '' INT TERM; sleep 1000"], env={"PATH": "/bin"},
    cwd="/", user=User(), hostname="box", network=choose().network)
with VARIANTS[kind]() as executor:
    executor.run(spec, Directory(Path(root)), output=lambda _, data: print(data.decode(), end="", flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_helper_outlives_the_builder(
    kind: str, network: Network, tmp_path: Path, number: signal.Signals, host: None
) -> None:
    root = full_root(tmp_path / "root")
    environment = {**os.environ, "PATH": str(tmp_path / "programs")}
    command = [sys.executable, "-c", BUILDER, kind, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, env=environment) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"started\n"
        below = descendants(builder.pid)
        files = [os.pidfd_open(pid) for pid in below]
        builder.send_signal(number)
        builder.wait(20)
    assert os.path.basename(network.helper[0]) in below.values()
    try:
        end = time.monotonic() + 20
        while (left := [fd for fd in files if lives(fd)]) and time.monotonic() < end:
            time.sleep(0.05)
        assert left == []
    finally:
        for fd in files:
            os.close(fd)


def lives(process: int) -> bool:
    try:
        signal.pidfd_send_signal(process, 0)
    except ProcessLookupError:
        return False
    # One that has ended but is not yet reaped, by a first process that others own, is no process any more.
    number = Path(f"/proc/self/fdinfo/{process}").read_text().partition("Pid:\t")[2].split()[0]
    try:
        return ") Z " not in Path(f"/proc/{number}/stat").read_text()
    except FileNotFoundError:
        return False


ROOTLESS = """
import sys
from pathlib import Path
from imagetool.runtime.executors import EmbeddedExecutor
from imagetool.runtime.namespaces import enter_user_namespace
from imagetool.runtime.network import network_of
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.spec import build_step_spec
from imagetool.runtime.users import User

enter_user_namespace()
with EmbeddedExecutor() as executor:
    network, warning = network_of("default", executor, Sandbox(), fallback="host")
    spec = build_step_spec(args=["sh", "-c", "ip -o -4 addr"], env={"PATH": "/bin"}, cwd="/", user=User(),
        hostname="box", network=network)
    executor.run(spec, Directory(Path("root")), output=lambda _, data: (sys.stdout.buffer.write(data), None)[1])
print(warning)
"""


@pytest.mark.parametrize("mode", ["666", "600"])
def test_an_ordinary_user_has_the_same_where_the_device_is_open_to_all(mode: str, host: None) -> None:
    device = f"mount -t tmpfs none /dev/net && mknod /dev/net/tun c 10 200 && chmod {mode} /dev/net/tun"
    alone = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{device} && exec "$@"', "sh"]
    with shared_folder() as folder:
        root = full_root(folder / "root")
        subprocess.run(["chown", "-R", str(NOBODY), str(root)], check=True)
        ran = unprivileged(alone)(folder, ROOTLESS)
    assert ran.returncode == 0, ran.stderr
    if mode == "666":
        assert "10.0.2.100" in ran.stdout
        assert WARNING not in ran.stdout
    else:
        assert OUTSIDE in ran.stdout
        assert f"{WARNING} and reach what listens on its loopback interface: /dev/net/tun cannot" in ran.stdout


def test_a_build_warns_once_or_refuses_where_there_is_no_helper(tmp_path: Path) -> None:
    context, root, nothing = tmp_path / "context", tmp_path / "store", tmp_path / "nothing"
    for folder in (context, nothing):
        folder.mkdir()
    imagetool("base", "busybox", root=root)
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo 1\nRUN echo 2\nRUN --network=none echo 3\n")
    bare = {"PATH": str(nothing)}
    done = imagetool("build", "-t", "x", "--no-cache", context, root=root, env=bare)
    assert done.stderr.count(WARNING) == 1
    assert "neither slirp4netns nor pasta is installed" in done.stderr
    refuse = {**bare, "IMAGETOOL_NETWORK_FALLBACK": "refuse"}
    refused = imagetool("build", "--no-cache", context, root=root, env=refuse, check=False)
    assert refused.returncode == HostError.exit_code
    assert "IMAGETOOL_NETWORK_FALLBACK=refuse forbids the host's" in refused.stderr
    for asked in ("host", "none"):
        done = imagetool("build", "--no-cache", "--network", asked, context, root=root, env=refuse)
        assert WARNING not in done.stderr
    assert imagetool("run", "x", "true", root=root, env=bare).stderr.count(WARNING) == 1
    assert imagetool("run", "x", "true", root=root, env=refuse, check=False).returncode == HostError.exit_code
    assert WARNING not in imagetool("run", "--network", "none", "x", "true", root=root, env=refuse).stderr


def test_a_build_uses_the_helper_and_keeps_its_name_server_out_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("slirp4netns", tmp_path, monkeypatch)
    context, root = tmp_path / "context", tmp_path / "store"
    context.mkdir()
    imagetool("base", "busybox", root=root)
    show = "ip -o -4 addr && cat /etc/resolv.conf"
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN {show}\n")
    done = imagetool("build", "-t", "x", "--no-cache", "--progress", "plain", context, root=root)
    for text in ("10.0.2.100", "nameserver 10.0.2.3"):
        assert text in done.stderr
    assert WARNING not in done.stderr
    assert "resolv.conf" not in imagetool("ls", "x", root=root).stdout
    assert "10.0.2.100" in imagetool("run", "x", "sh", "-c", show, root=root).stdout


def test_other_executors_say_that_they_use_the_hosts() -> None:
    for isolation, runtime, named in (
        ("auto", "/usr/sbin/runc", "runc"),
        ("bwrap", None, "bwrap"),
        ("chroot", None, "chroot"),
    ):
        with executor_of(isolation, runtime) as executor:
            network, warning = network_of("default", executor, Sandbox(), fallback="host")
            assert network == HOST
            assert f": {named} is run without a helper for it" in warning
            with pytest.raises(HostError, match="--network host allows it"):
                network_of("default", executor, Sandbox(), fallback="refuse")
            assert network_of("host", executor, Sandbox(), fallback="refuse") == (HOST, "")


def broken(folder: Path, *names: str) -> dict[str, str]:
    """Make helpers that are there but do not work; return the environment that has no others."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho {name}: no such device >&2\nexit 1\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_a_helper_that_does_not_work_is_told_once_a_build_or_refused(tmp_path: Path) -> None:
    context, root = tmp_path / "context", tmp_path / "store"
    context.mkdir()
    imagetool("base", "busybox", root=root)
    (context / "Dockerfile").write_text("FROM busybox\nRUN ip -o link\nRUN cat /etc/resolv.conf\n")
    lame = broken(tmp_path / "programs", *HELPERS)
    done = imagetool("build", "--progress", "plain", "--no-cache", context, root=root, env=lame)
    assert done.stderr.count(WARNING) == 1
    assert "slirp4netns ended: slirp4netns: no such device" in done.stderr
    assert "10.0.2.3" not in done.stderr
    assert imagetool("run", "busybox", "true", root=root, env=lame).stderr.count(WARNING) == 1
    refuse = {**lame, "IMAGETOOL_NETWORK_FALLBACK": "refuse"}
    for command in (["build", "--no-cache", context], ["run", "busybox", "true"]):
        refused = imagetool(*command, root=root, env=refuse, check=False)
        assert refused.returncode == HostError.exit_code
        assert "slirp4netns ended: slirp4netns: no such device" in refused.stderr
        assert "Traceback" not in refused.stderr
    found = json.loads(imagetool("doctor", "--json", root=root, env=lame).stdout)
    (network,) = (one for one in found["findings"] if one["name"] == "network")
    assert network["state"] == "limited"
    assert "no such device" in network["detail"]


def test_the_second_helper_is_taken_when_the_first_does_not_work(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("pasta", tmp_path, monkeypatch)
    environment = broken(tmp_path / "lame", "slirp4netns")
    monkeypatch.setenv("PATH", f"{environment['PATH']}:{tmp_path / 'programs'}")
    network, warning = network_of("default", executor, Sandbox(), fallback="refuse")
    assert warning == ""
    assert os.path.basename(network.helper[0]) == "pasta"
