"""Builds and runs without root: with subordinate ids, with one id only, and inside another container.

Each way says in one line what is different there, and makes the same image wherever it can.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagetool.runtime.executors import EmbeddedExecutor
from imagetool.runtime.security import CONTAINER_CAPABILITIES, Security
from imagetool.runtime.spec import Mount
from tests.support.bases import store_with
from tests.support.command import imagetool
from tests.support.containers import overlay, run
from tests.support.users import CHECKOUT, NOBODY, as_user, delegated, users_folder

pytestmark = pytest.mark.root

#: All belongs to root, so that it can be made with one id.
PLAIN = """\
FROM busybox
WORKDIR /work
COPY Dockerfile .
RUN id -u > /id && mkdir -p /made/deep && echo x > /made/deep/file && chmod 2755 /made && ln /made/deep/file /made/hard
RUN rm /made/hard && mkfifo /made/fifo && ln -s deep /made/link && test -c /dev/null && grep -q Pid: /proc/self/status
"""
OWNERS = """\
FROM busybox
RUN mkdir /a && echo x > /a/file && chown -R 5:6 /a && chmod 700 /a
RUN echo y > /a/more
"""
ONE_ID = "without root and without subordinate ids"
MANY_IDS = "without root: other users of the image are subordinate ids"
OUTER_PROC = "the kernel allows no new /proc here"

#: How an ordinary user gets at containers: options of `as_user`.
WAYS: dict[str, dict[str, Any]] = {
    "range": {"subordinate": True},
    "single": {},
    "range, nested": {"subordinate": True, "masked_proc": True},
    "single, nested": {"masked_proc": True},
}


class Place:
    """A user's own store, with a context beside it; `user` and `root` run the program there."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.root = store_with(base, folder)
        self.context = folder / "context"
        self.context.mkdir()
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", folder], check=True)

    def user(self, way: str, *args: str | Path, check: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "imagetool", "--root", self.root, *args]
        done = as_user(command, folder=self.folder, **WAYS[way])
        assert done.returncode == check, (args, done.stdout, done.stderr)
        return done

    def build(self, way: str, text: str, *flags: str) -> str:
        """Build a Dockerfile as x:1, as the user in a way or as "root"; return what was said."""
        (self.context / "Dockerfile").write_text(text)
        (self.context / "Dockerfile").chmod(0o644)
        command: list[str | Path] = ["build", "-t", "x:1", "--progress", "plain", *flags, self.context]
        return imagetool(*command, root=self.root).stderr if way == "root" else self.user(way, *command).stderr

    def run(self, way: str, script: str) -> str:
        """Return what a script in a container of x:1 prints."""
        command = ["run", "x:1", "/bin/sh", "-c", script]
        return imagetool(*command, root=self.root).stdout if way == "root" else self.user(way, *command).stdout

    @property
    def digest(self) -> str:
        shown: str = json.loads(imagetool("inspect", "x:1", root=self.root).stdout)["digest"]
        return shown


@pytest.fixture
def place(busybox_base: Path) -> Iterator[Place]:
    with users_folder() as folder:
        yield Place(folder, busybox_base)


@pytest.fixture(scope="module")
def wanted(busybox_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of the two images as root builds them."""
    place = Place(tmp_path_factory.mktemp("root"), busybox_base)
    digests = {}
    for text in (PLAIN, OWNERS):
        place.build("root", text)
        digests[text] = place.digest
    return digests


@pytest.mark.parametrize("way", WAYS)
def test_an_ordinary_user_builds_and_runs_what_root_does(place: Place, wanted: dict[str, str], way: str) -> None:
    said = place.build(way, PLAIN)
    assert place.digest == wanted[PLAIN]
    assert said.count(ONE_ID) == ("single" in way)
    assert said.count(MANY_IDS) == ("range" in way)
    assert said.count(OUTER_PROC) == ("nested" in way)
    warnings = [line for line in said.splitlines() if "warning" in line]
    of_network = [line for line in warnings if "network" in line]  # where no helper can make one of its own
    assert len(of_network) <= 1
    assert len(warnings) - len(of_network) == ("single" in way) + ("nested" in way)
    done = place.user(way, "run", "x:1", "/bin/sh", "-c", "cat /id /made/deep/file; touch /new; exit 7", check=7)
    assert done.stdout == "0\nx\n"
    assert done.stderr.count(ONE_ID) == ("single" in way)
    assert done.stderr.count(OUTER_PROC) == ("nested" in way)


@pytest.mark.parametrize("way", WAYS)
def test_owners_are_true_with_a_range_and_roots_with_one_id(place: Place, wanted: dict[str, str], way: str) -> None:
    place.build(way, OWNERS)
    assert (place.digest == wanted[OWNERS]) == ("range" in way)
    owners = place.run(way, "stat -c %u:%g /a /a/file /a/more").split()
    assert owners == (["5:6", "5:6", "0:0"] if "range" in way else ["0:0"] * 3)


@pytest.mark.parametrize("way", ["range", "single"])
def test_the_proc_of_the_outer_container_is_read_only(place: Place, way: str) -> None:
    place.build(way, "FROM busybox\n")
    script = "echo x > /proc/self/comm || echo refused; test -e /proc/1/status && echo seen"
    assert place.run(f"{way}, nested", script).split() == ["refused", "seen"]


@pytest.mark.parametrize(
    "ways",
    [("range", "single"), ("single", "range"), ("range", "root"), ("single", "root"), ("root", "range")],
    ids=" then ".join,
)
@pytest.mark.parametrize("cached", [False, True], ids=["built again", "from the cache"])
def test_a_store_used_with_other_ids_shows_the_owners_that_the_image_has(
    place: Place, wanted: dict[str, str], ways: tuple[str, str], cached: bool
) -> None:
    """Unpacked files have owners of the host, so what was unpacked with one mapping is wrong under another."""
    for number, way in enumerate(ways):
        place.build(way, OWNERS, *([] if cached or number == 0 else ["--no-cache"]))
        if way == "root":  # what it has put into the user's store is for the user too
            subprocess.run(
                ["chown", "-R", f"{NOBODY}:{NOBODY}", place.root / "layout", place.root / "cache"], check=True
            )
        assert (place.digest == wanted[OWNERS]) == (way != "single"), f"{way}, {number}"
        owners = place.run(way, "stat -c %u:%g /a/file; cat /a/more").split()
        assert owners == ["0:0" if way == "single" else "5:6", "y"]


CACHE = """\
FROM busybox
RUN --mount=type=cache,target=/kept,mode=0700 echo x >> /kept/lines && chown 7:7 /kept/lines && wc -l < /kept/lines
RUN --mount=type=cache,target=/others,uid=7,mode=0700 --network=none echo x >> /others/lines && cat /others/lines
"""


@pytest.mark.parametrize(
    "ways",
    [("range", "single", "range"), ("single", "range", "single"), ("range", "root"), ("root", "single")],
    ids=" then ".join,
)
def test_cache_mounts_are_apart_by_the_ids_that_they_were_made_with(place: Place, ways: tuple[str, ...]) -> None:
    seen: dict[str, int] = {}
    for way in ways:
        seen[way] = seen.get(way, 0) + 1
        said = place.build(way, CACHE, "--no-cache")
        assert f"\n  {seen[way]}\n" in said, said
        if way == "root":
            subprocess.run(
                ["chown", "-R", f"{NOBODY}:{NOBODY}", place.root / "layout", place.root / "cache"], check=True
            )


@pytest.mark.parametrize("way", ["range", "single", "root"])
def test_who_made_cache_mounts_lists_exports_and_removes_them(place: Place, way: str) -> None:
    place.build(way, CACHE)

    def cache(*args: str | Path) -> str:
        command = ["cache", *args]
        done = imagetool(*command, root=place.root) if way == "root" else place.user(way, *command)
        return done.stdout

    assert {line.split()[-1] for line in cache("ls").splitlines()} == {"/kept", "/others"}
    cache("export", f"oci:{place.folder}/exported:c")
    assert "2 cache mounts" in cache("prune")
    assert cache("ls") == ""
    assert cache("import", f"oci:{place.folder}/exported:c").split() == ["/kept", "/others"]
    assert "\n  2\n" in place.build(way, CACHE, "--no-cache")


@pytest.mark.parametrize("way", ["range", "single"])
def test_a_secret_for_another_user_is_read_by_that_user(place: Place, way: str) -> None:
    (place.folder / "secret").write_text("hidden")
    (place.folder / "secret").chmod(0o644)
    text = "FROM busybox\nUSER 7\nRUN --mount=type=secret,id=s,uid=7 test $(wc -c < /run/secrets/s) = 6 && echo read\n"
    assert "\n  read\n" in place.build(way, text, "--secret", f"id=s,src={place.folder}/secret")


def in_container(place: Place, security: Security, *args: str) -> tuple[int, str]:
    """Run the program as root of a real container with the host's files, the user's folder at /mnt."""
    command = [sys.executable, "-m", "imagetool", "--root", "/mnt/store", *args]
    path = f"{Path(sys.prefix) / 'bin'}:/usr/bin:/bin:/usr/sbin:/sbin"
    with EmbeddedExecutor() as executor:
        ran = run(
            executor,
            overlay(place.folder / f"run-{len(list(place.folder.iterdir()))}", Path("/")),
            *command,
            env={"PATH": path, "HOME": "/mnt"},
            cwd=str(CHECKOUT),
            mounts=[Mount("/mnt", "bind", str(place.folder), ("rbind", "rw"))],
            security=security,
            userns="default",
        )
    return ran.code, ran.text + ran.err.decode()


def doctors_word(place: Place, security: Security) -> dict[str, str]:
    _, said = in_container(place, security, "doctor", "--json")
    found: dict[str, str] = next(one for one in json.loads(said)["findings"] if one["name"] == "containers")
    return found


def test_root_of_a_container_without_its_filter_builds_and_runs(
    busybox_base: Path, tmp_path: Path, wanted: dict[str, str]
) -> None:
    """As in `docker run --security-opt seccomp=unconfined`: root lacks CAP_SYS_ADMIN, and has the container's ids."""
    place = Place(tmp_path / "place", busybox_base)
    subprocess.run(["chown", "-R", "0:0", place.folder], check=True)
    (place.context / "Dockerfile").write_text(OWNERS)
    security = Security(CONTAINER_CAPABILITIES, seccomp=None)
    code, said = in_container(place, security, "build", "-t", "x:1", "--progress", "plain", "/mnt/context")
    assert code == 0, said
    assert place.digest == wanted[OWNERS]
    code, said = in_container(place, security, "run", "x:1", "/bin/stat", "-c", "%u:%g", "/a/file", "/a/more")
    assert (code, said.split()[:2]) == (0, ["5:6", "0:0"]), said
    assert doctors_word(place, security)["state"] == "ok"


def test_root_of_a_container_that_may_make_no_namespace_is_told_how_to_start_it(
    busybox_base: Path, tmp_path: Path
) -> None:
    place = Place(tmp_path / "place", busybox_base)
    subprocess.run(["chown", "-R", "0:0", place.folder], check=True)
    (place.context / "Dockerfile").write_text(OWNERS)
    for args in (["build", "/mnt/context"], ["run", "busybox", "/bin/true"]):
        code, said = in_container(place, Security(CONTAINER_CAPABILITIES), *args)
        assert code == 9, said
        assert said.count("--security-opt seccomp=unconfined") == 1
        assert "Traceback" not in said
    found = doctors_word(place, Security(CONTAINER_CAPABILITIES))
    assert found["state"] == "missing"
    assert "--security-opt seccomp=unconfined" in found["fix"]


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--memory", "64m", "--memory"),
        ("--cpus", "0.5", "--cpus"),
        ("--cpu-shares", "100", "--cpu-shares"),
        ("--cpuset-cpus", "0", "--cpuset-cpus"),
        ("--pids-limit", "20", "--pids-limit"),
    ],
)
def test_a_limit_that_cannot_be_set_is_an_error_that_says_what_to_do(
    place: Place, option: str, value: str, named: str
) -> None:
    (place.context / "Dockerfile").write_text("FROM busybox\nRUN touch /was-run\n")
    for command in (
        ["build", "--progress", "plain", option, value, place.context],
        ["run", option, value, "busybox", "/bin/true"],
    ):
        done = place.user("range", *command, check=9)
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("imagetool:"))
        assert named in line
        assert "cannot be put into force" in line
        assert "Delegate=yes" in line
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["range", "single"])
def test_limits_are_in_force_where_control_groups_were_delegated(place: Place, way: str) -> None:
    controllers = frozenset(("memory", "pids", "cpu", "cpuset"))
    with delegated(controllers) as groups:
        if len(groups) < len(controllers):
            pytest.skip("needs control groups of version 1")

        def run(*args: str, check: int) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "imagetool", "--root", place.root, *args]
            done = as_user(command, folder=place.folder, groups=groups, **WAYS[way])
            assert done.returncode == check, done.stderr
            return done

        hungry = ["/bin/sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=100"]
        done = run("run", "--memory", "16m", "--shm-size", "200m", "busybox", *hungry, check=137)
        assert "met its memory limit of 16.0 MiB" in done.stderr
        many = ["/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; wait"]
        assert "limit of 5 processes" in run("run", "--pids-limit", "5", "busybox", *many, check=2).stderr
        (place.context / "Dockerfile").write_text("FROM busybox\nRUN grep Cpus_allowed_list /proc/self/status\n")
        limits = ["--cpus", "0.5", "--cpu-shares", "100", "--cpuset-cpus", "0", "--stats"]
        done = run("build", "--progress", "plain", *limits, str(place.context), check=0)
        assert "Cpus_allowed_list:\t0\n" in done.stderr
        assert "s of CPU time" in done.stderr
        found = {one["name"]: one for one in json.loads(run("doctor", "--json", check=0).stdout)["findings"]}
        assert found["limits"]["state"] == "ok"
        assert not [path for group in groups for path in group.iterdir() if path.is_dir()], "nothing is left"


def test_limits_that_need_no_control_group_are_in_force_without_root(place: Place) -> None:
    script = "ulimit -n; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"
    options = ["--ulimit", "nofile=33", "--shm-size", "1m"]
    done = place.user("range", "run", *options, "busybox", "/bin/sh", "-c", script)
    assert done.stdout.split() == ["33", "1024"]
    done = place.user("range", "run", "--timeout", "1", "busybox", "/bin/sleep", "60", check=137)
    assert "time limit of 1 second" in done.stderr
