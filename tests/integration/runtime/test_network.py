"""The network of containers: what they reach, what they do not, and that no helper outlives them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagetool.errors import HostError
from imagetool.runtime.executors import EmbeddedExecutor, Executor
from imagetool.runtime.network import HOST, NONE, Network
from tests.support.containers import (
    NOBODY,
    full_root,
    sh,
    shared_folder,
    unprivileged,
)
from tests.support.networks import (
    OUTSIDE,
    WARNING,
    descendants,
    greeter,
    reach,
    root_in,
    started,
)

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[3]


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
