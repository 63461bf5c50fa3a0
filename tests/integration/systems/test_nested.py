"""Builds and runs in containers of podman and docker: what works as it is, and what else is told in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool
from tests.support.systems import PODMAN_RUN, dockerd, need, podman, run, short_folder
from tests.support.users import CHECKOUT

pytestmark = [pytest.mark.root, pytest.mark.peer]

#: The outer container: a shell, and places for the host's libraries.
OUTER = """\
FROM busybox
RUN rmdir /lib; ln -s usr/lib /lib && ln -s usr/lib64 /lib64 && mkdir -p /etc /tmp /usr
"""
INNER = """\
FROM busybox
RUN mkdir /a && echo x > /a/file && chown -R 5:6 /a && test -c /dev/null && grep -q Pid: /proc/self/status
"""
ALONE = """\
FROM busybox
RUN --network=none test $(ip -o link | wc -l) = 1 && ! touch /sys/x 2>/dev/null && echo /sys is read-only
RUN ip -o -4 addr
"""
OUTER_PROC = "the kernel allows no new /proc here"
NO_HOST_NAME = "the outer container's filter forbids host names"


@dataclass
class Nest:
    """A store and a context at `folder`, /mnt of the outer container; `inside` runs the program there."""

    folder: Path
    command: Callable[..., list[str]]
    digest: str

    def inside(self, options: tuple[str, ...], *args: str, check: int = 0) -> subprocess.CompletedProcess[str]:
        places = dict.fromkeys(map(str, ("/usr", CHECKOUT, Path(sys.prefix), Path(sys.base_prefix))))
        volumes = [f"--volume={place}:{place}:ro" for place in places]
        flags = [*options, *volumes, f"--volume={self.folder}:/mnt", f"--workdir={CHECKOUT}", "--network=none"]
        environment = ["--env=PATH=/bin:/usr/bin:/usr/sbin", "--env=PYTHONDONTWRITEBYTECODE=1", "--env=HOME=/mnt"]
        program = [sys.executable, "-m", "imagetool", "--root", "/mnt/store", *args]
        done = run(*self.command(*flags, *environment, "outer:1", *program), check=None)
        assert "Traceback" not in done.stderr
        assert done.returncode == check, done.stdout + done.stderr
        return done

    def builds_and_runs(self, *options: str) -> str:
        """Build the image and run it, as it is when root of the host builds it; return what was said."""
        built = self.inside(options, "build", "-t", "x:1", "--no-cache", "--progress", "plain", "/mnt/context")
        assert json.loads(imagetool("inspect", "x:1", root=self.folder / "store").stdout)["digest"] == self.digest
        script = "stat -c %u:%g /a/file; exit 7"
        assert self.inside(options, "run", "x:1", "/bin/sh", "-c", script, check=7).stdout == "5:6\n"
        return built.stderr


@pytest.fixture(scope="module")
def prepared(busybox_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a store, the context, and the outer image's archive; and the digest that the inner image has."""
    folder = tmp_path_factory.mktemp("nested")
    root = store_with(busybox_base, folder)
    for name, text in (("outer", OUTER), ("context", INNER), ("alone", ALONE)):
        (folder / name).mkdir()
        (folder / name / "Dockerfile").write_text(text)
    imagetool("build", "-t", "outer:1", "--network", "none", folder / "outer", root=root)
    imagetool("save", "outer:1", "-o", folder / "outer.tar", root=root)
    imagetool("build", "-t", "x:1", "--network", "none", folder / "context", root=root)
    return folder, json.loads(imagetool("inspect", "x:1", root=root).stdout)["digest"]


@pytest.fixture(scope="module")
def in_podman(prepared: tuple[Path, str]) -> Iterator[Nest]:
    need("podman", "runc")
    folder, digest = prepared
    with short_folder() as place:
        run(*podman(place), "load", "-i", folder / "outer.tar")
        ulimits = [word for word in PODMAN_RUN if word not in ("--network", "none")]
        yield Nest(folder, lambda *words: [*podman(place), *ulimits, *words], digest)


@pytest.fixture(scope="module")
def in_docker(prepared: tuple[Path, str]) -> Iterator[Nest]:
    need("dockerd", "docker", "containerd", "runc")
    folder, digest = prepared
    with ExitStack() as stack:
        host = stack.enter_context(dockerd(stack.enter_context(short_folder())))
        run("docker", "-H", host, "load", "-i", folder / "outer.tar")
        yield Nest(folder, lambda *words: ["docker", "-H", host, "run", "--rm", *words], digest)


def test_in_a_container_of_podman_it_works_as_it_is(in_podman: Nest) -> None:
    said = in_podman.builds_and_runs()
    assert said.count(OUTER_PROC) == 1
    assert said.count(NO_HOST_NAME) <= 1  # newer filters of podman's look at the namespace
    assert said.count("warning: ") == said.count(OUTER_PROC) + said.count(NO_HOST_NAME) + said.count(
        "use the host's network"
    )


def test_in_a_container_with_a_part_of_the_ids_it_works_as_it_is(in_podman: Nest, tmp_path: Path) -> None:
    """As a container that an ordinary user starts has: its root is a subordinate id of the host."""
    shutil.copytree(in_podman.folder, tmp_path / "own", symlinks=True, ignore=shutil.ignore_patterns("snapshots*"))
    run("chown", "-R", "300000:300000", tmp_path / "own")
    own = Nest(tmp_path / "own", in_podman.command, in_podman.digest)
    said = own.builds_and_runs("--uidmap=0:300000:65536", "--gidmap=0:300000:65536")
    assert said.count(OUTER_PROC) == 1


@pytest.mark.parametrize("options", [("--security-opt=seccomp=unconfined",), ("--cap-add=SYS_ADMIN",)])
def test_in_a_container_of_docker_it_works_with_one_more_option(in_docker: Nest, options: tuple[str, ...]) -> None:
    in_docker.builds_and_runs(*options)
    found = json.loads(in_docker.inside(options, "doctor", "--json").stdout)
    assert found["healthy"] is True
    fixes = {one["name"]: one["fix"] for one in found["findings"]}
    assert "the outer container" in fixes["limits"]
    assert fixes["network"] == "start the outer container with --device /dev/net/tun"
    for args in (["build", "--memory", "64m", "--no-cache", "/mnt/context"], ["run", "--memory", "64m", "x:1", "true"]):
        said = in_docker.inside(options, *args, check=9).stderr
        assert "inside a container, limit that one" in said


def test_a_step_has_a_network_of_its_own_where_the_outer_container_has_the_device(in_podman: Nest) -> None:
    need("slirp4netns")
    args = ("build", "--no-cache", "--progress", "plain", "/mnt/alone")
    said = in_podman.inside(("--device=/dev/net/tun",), *args).stderr
    assert "/sys is read-only" in said
    assert " tap0 " in said
    assert "use the host's network" not in said
    said = in_podman.inside((), *args).stderr
    assert "/sys is read-only" in said
    assert " tap0 " not in said
    assert said.count("use the host's network") == 1


def test_in_a_container_of_docker_as_it_is_one_line_says_what_to_start_it_with(in_docker: Nest) -> None:
    for args in (["build", "--no-cache", "/mnt/context"], ["run", "x:1", "/bin/true"]):
        said = in_docker.inside((), *args, check=9).stderr
        (line,) = (line for line in said.splitlines() if line.startswith("imagetool: "))
        assert "--security-opt seccomp=unconfined" in line
    found = json.loads(in_docker.inside((), "doctor", "--json", check=9).stdout)
    (containers,) = (one for one in found["findings"] if one["name"] == "containers")
    assert containers["state"] == "missing"
    assert "--security-opt seccomp=unconfined" in containers["fix"]


def test_what_needs_no_container_works_in_one_as_it_is(in_docker: Nest) -> None:
    (in_docker.folder / "plain").mkdir(exist_ok=True)
    (in_docker.folder / "plain/Dockerfile").write_text("FROM busybox\nCOPY Dockerfile /\nENV A=b\n")
    in_docker.inside((), "build", "-t", "plain:1", "/mnt/plain")
    shutil.rmtree(in_docker.folder / "plain")
    assert json.loads(in_docker.inside((), "inspect", "plain:1").stdout)["digest"]
