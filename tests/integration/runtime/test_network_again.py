"""One network for several containers: what is used again and what is not, and what becomes of a helper that ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from imagetool.runtime.executors import EmbeddedExecutor, Executor
from imagetool.runtime.network import Network
from imagetool.runtime.rootfs import Directory
from imagetool.runtime.security import DEFAULT_CAPABILITIES, Security
from imagetool.runtime.spec import Mount, build_step_spec
from imagetool.runtime.users import User
from tests.support.containers import (
    full_root,
    helpers,
    open_files,
    overlay,
    run,
    sh,
)
from tests.support.networks import (
    HELPERS,
    descendants,
    reach,
    root_in,
    started,
)
from tests.support.wire import wait_for

pytestmark = pytest.mark.root


def test_a_helper_that_ends_too_early_is_told(tmp_path: Path) -> None:
    short = Network(own=True, helper=("/bin/sh", "-c", "echo 1 >&4; sleep 0.2; echo tired >&2"))
    told: list[str] = []
    root = root_in(tmp_path)
    os.mkfifo(root.path / "go")

    def go_on(_stream: int, data: bytes) -> None:
        if data == b"begun\n":
            (zygote,) = helpers()
            # Besides the container there is who looks after the helper, until it has told that this has ended.
            wait_for(lambda: len(Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()) == 1, 20)
            (root.path / "go").write_text("well\n")
        said.append(data)

    said: list[bytes] = []
    with EmbeddedExecutor(warn=told.append) as executor:
        args = ["/bin/sh", "-c", "echo begun; cat /go"]
        spec = build_step_spec(args=args, env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box", network=short)
        executor.run(spec, root, output=go_on)
        assert said == [b"begun\n", b"well\n"]
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
    assert not open_files() - files
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
