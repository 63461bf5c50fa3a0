"""Images built by hand, command by command: the same as a Dockerfile's, and read by others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.steps.conftest import Shop

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox
COPY hello.txt /srv/
COPY --chown=1:2 --chmod=640 sub /srv/sub
RUN ["/bin/sh", "-c", "echo $PATH > /ran; chown 5:6 /ran; rm /bin/yes"]
WORKDIR /w/x
USER nobody
ENV A=1
ENV B=1/2
LABEL l="a b"
EXPOSE 8080/tcp
VOLUME /data
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "echo hi"]
"""


def make(shop: Shop) -> str:
    name = shop.do("from", "busybox")
    shop.do("copy", name, "hello.txt", "/srv/")
    shop.do("copy", "--chown", "1:2", "--chmod=640", name, "sub", "/srv/sub")
    shop.do("run", name, "--", "/bin/sh", "-c", "echo $PATH > /ran; chown 5:6 /ran; rm /bin/yes")
    shop.do("config", "--workingdir", "/w/x", name)
    shop.do("config", "--user", "nobody", "--env", "A=1", name)
    shop.do("config", "-e", "B=$A/2", "--label", "l=a b", "--port", "8080", name)
    shop.do("config", "--volume", "/data", "--stop-signal", "SIGINT", "--entrypoint", '["/bin/sh"]', name)
    shop.do("config", "--cmd", "-c 'echo hi'", name)
    return name


def test_steps_by_hand_make_the_very_image_of_the_same_dockerfile(shop: Shop) -> None:
    (shop.folder / "Dockerfile").write_text(DOCKERFILE)
    by_file = shop.do("build", "-q", "--no-cache", "-t", "by-file", ".")
    by_hand = shop.do("commit", "-q", make(shop), "by-hand")
    assert shop.do("inspect", "--config", "by-hand") == shop.do("inspect", "--config", "by-file")
    assert by_hand == by_file


def test_a_container_is_named_after_its_image_and_listed(shop: Shop) -> None:
    first, second = shop.do("from", "busybox"), shop.do("from", "docker.io/library/busybox:latest")
    assert [first, second] == ["busybox-working-container", "busybox-working-container-1"]
    third, fourth = shop.do("from", "scratch"), shop.do("from", "--name", "mine", "busybox")
    assert [third, fourth] == ["working-container", "mine"]
    listed = json.loads(shop.do("containers", "--json"))
    assert [one["containername"] for one in listed] == [first, second, third, fourth]
    assert [one["imagename"] for one in listed] == ["busybox:latest", "busybox:latest", "scratch", "busybox:latest"]
    assert shop.do("containers", "-q").split() == [one["id"][:12] for one in listed]
    assert "mine" in shop.do("from", "--name", "mine", "busybox", code=2)
    assert shop.do("rm", listed[0]["id"][:6], "mine").split() == [listed[0]["id"], listed[3]["id"]]
    assert shop.do("rm", "--all").split() == [listed[1]["id"], listed[2]["id"]]
    assert shop.do("containers", "-n") == ""


def test_what_a_run_changes_stays_whatever_its_exit_code(shop: Shop) -> None:
    name = shop.do("from", "busybox")
    assert shop.do("run", name, "sh", "-c", "echo one > /kept; exit 7", code=7) == ""
    assert shop.do("run", name, "cat", "/kept") == "one"
    shop.do("run", name, "--", "rm", "/kept")
    assert "No such file" in shop.do("run", name, "cat", "/kept", code=1)
    shop.do("commit", name, "made")
    made = [entry["created_by"] for entry in json.loads(shop.do("history", "--json", "made"))]
    assert made[:2] == ["RUN rm /kept", "RUN sh -c echo one > /kept; exit 7"], "what only looked is no step"
    assert len(made) == 3


def test_a_run_has_what_is_asked_for_and_nothing_of_it_is_committed(shop: Shop) -> None:
    name = shop.do("from", "busybox")
    options = ("-e", "A=b", "-w", "/tmp", "-u", "1:2", "-v", f"{shop.folder}:/mnt:ro", "--hostname", "box")
    script = "echo $A; pwd; id -u; id -g; cat /mnt/hello.txt; hostname; touch /mnt/x 2>/dev/null || echo refused"
    said = shop.do("run", *options, "--network", "none", name, "--", "sh", "-c", script)
    assert said.split("\n") == ["b", "/tmp", "1", "2", "hello", "box", "refused"]
    mounts = ("--mount", "type=bind,source=sub,target=/in", "--mount", "type=cache,target=/c", "--tmpfs", "/t")
    shop.do("run", *mounts, name, "sh", "-c", "cp /in/inner /c/; touch /t/x; cp /c/inner /out")
    assert shop.do("run", *mounts, name, "ls", "/c") == "inner", "a cache stays from run to run"
    assert shop.do("run", name, "sh", "-c", "ls -d /in /c /t /mnt 2>/dev/null; cat /out") == "inner"
    assert "--read-only" in shop.do("run", "--read-only", name, "true", code=2)


def test_copying_takes_what_buildah_users_write(shop: Shop) -> None:
    name, other = shop.do("from", "busybox"), shop.do("from", "scratch")
    shop.do("config", "--workingdir", "/w", name)
    shop.do("copy", name, shop.folder / "hello.txt")
    shop.do("copy", "-q", name, "hello.txt", "sub/inner", "/many/")
    shop.do("copy", "--exclude", "inner", name, "sub", "/none")
    shop.do("copy", other, "hello.txt", "/from-other")
    shop.do("copy", "--from", other, name, "/from-other", "/a")
    shop.do("copy", "--from", "busybox", name, "/bin/busybox", "/b")
    shop.do("copy", "--contextdir", shop.folder / "sub", name, "/inner", "/c")
    assert "not found" in shop.do("copy", "--contextdir", shop.folder / "sub", name, "../hello.txt", "/d", code=1)
    said = shop.do("run", name, "sh", "-c", "cat /w/hello.txt /many/*; ls /none; cat /a /c; cmp /b /bin/busybox")
    assert said.split("\n") == ["hello", "hello", "inner", "hello", "inner"]
    shop.do("add", name, "https://127.0.0.1:1/none", "/x", code=5)


def test_a_name_that_is_nearly_right_is_guessed_and_images_are_still_copied(shop: Shop, tmp_path: Path) -> None:
    shop.do("from", "--name", "worker", "busybox")
    assert "did you mean worker?" in shop.do("commit", "werker", "x", code=3)
    assert "did you mean worker?" in shop.do("copy", "werker", "a", "b", "c", code=3)
    assert "did you mean worker?" in shop.do("run", "localhost:1/werker", "true", code=5)
    described = json.loads(shop.do("inspect", "worker"))
    assert (described["containername"], described["imagename"]) == ("worker", "busybox:latest")
    assert described["config"]["config"]["Cmd"] == ["/bin/sh"]
    assert json.loads(shop.do("inspect", "--config", "worker")) == described["config"]
    digest = shop.do("copy", "busybox", f"oci:{tmp_path / 'out'}:box")
    assert digest.startswith("sha256:")
    assert "working container" in shop.do("copy", "--platform", "linux/amd64", "worker", "a", "b", code=2)


def test_commit_writes_what_build_writes_and_squashes(shop: Shop, tmp_path: Path) -> None:
    name = make(shop)
    files = ("--iidfile", tmp_path / "iid", "--metadata-file", tmp_path / "meta", "-o", f"type=oci,dest={tmp_path}/oci")
    image = shop.do("commit", *files, "--label", "x=y", "--unsetenv", "A", "--change", "CMD other", name, "done")
    assert (tmp_path / "iid").read_text() == image
    assert json.loads((tmp_path / "meta").read_text())["containerimage.config.digest"] == image
    config = json.loads(shop.do("inspect", "--config", f"oci:{tmp_path}/oci"))
    assert config["config"]["Labels"] == {"l": "a b", "x": "y"}
    assert config["config"]["Cmd"] == ["/bin/sh", "-c", "other"]
    assert [text for text in config["config"]["Env"] if text.startswith("A=")] == []
    shop.do("commit", "--squash", name, "flat")
    shop.do("commit", "--squash-new", name, "thin")
    layers = {tag: len(json.loads(shop.do("inspect", tag))["layers"]) for tag in ("done", "flat", "thin")}
    assert layers == {"done": 5, "flat": 1, "thin": 2}
    assert shop.do("diff", "--exit-code", "--total", "flat", "thin").endswith(" 0 entries")
    shop.do("commit", "--rm", name, f"oci-archive:{tmp_path / 'out.tar'}")
    assert (tmp_path / "out.tar").exists()
    assert shop.do("containers", "-q") == ""


def test_another_moment_is_that_of_history_and_files(shop: Shop) -> None:
    name = make(shop)
    shop.do("commit", "--timestamp", "1000", name, "early")
    config = json.loads(shop.do("inspect", "--config", "early"))
    assert config["created"] == "1970-01-01T00:16:40Z"
    assert {entry["created"] for entry in config["history"][1:]} == {config["created"]}
    entries = json.loads(shop.do("ls", "--json", "--layer", "2", "early"))
    assert entries
    assert {entry["mtime"] for entry in entries} == {1000}


def test_what_a_container_needs_outlives_the_removal_of_its_image(shop: Shop) -> None:
    name = make(shop)
    shop.do("commit", name, "first")
    shop.do("rmi", "busybox", "first")
    shop.do("cache", "prune")
    shop.do("from", "scratch")
    shop.do("rmi", "scratch", code=3)
    image = shop.do("commit", name, "again")
    assert "FAILED" not in shop.do("verify", "again")
    shop.do("rm", name)
    shop.do("rmi", "again")
    assert not (shop.root / "layout/blobs/sha256" / image.removeprefix("sha256:")).exists()
    blobs = [path for path in (shop.root / "layout/blobs/sha256").iterdir() if path.stat().st_size > 4096]
    assert blobs == [], "what the removed container needed is gone with it"


def test_what_from_says_of_containers_holds_for_every_run_in_it(shop: Shop) -> None:
    script = "cat /v/inner /w/hello.txt; grep -c other /etc/hosts; ls /sys/class/net; ulimit -n"
    given = ("-v", "./sub:/v:ro", "--network", "none", "--add-host", "other:1.2.3.4", "--ulimit", "nofile=77")
    name = shop.do("from", *given, "busybox")
    more = ("-v", f"{shop.folder}:/w", "--add-host", "others:1.2.3.5")
    assert shop.do("run", *more, name, "--", "sh", "-c", script).split() == ["inner", "hello", "2", "lo", "77"]
    assert "nofile" in shop.do("from", "--ulimit", "nofile=x", "busybox", code=2)
    assert shop.do("containers", "-q", "--noheading").count("\n") == 0  # the one that could not be was not made
    network = shop.do(
        "run", "--network", "default", name, "--", "sh", "-c", "readlink /proc/self/ns/net; ls /sys/class/net"
    )
    assert "tap0" in network or network.splitlines()[0] == os.readlink("/proc/self/ns/net"), "none is taken back"
    other = shop.do("from", "--name", "plain", "busybox")
    assert shop.do("run", other, "--", "sh", "-c", "ls /; ulimit -n").split()[-1] != "77"


def test_a_host_name_is_of_what_is_run_and_of_no_image(shop: Shop) -> None:
    name = shop.do("from", "busybox")
    usual = shop.do("run", name, "--", "hostname")
    shop.do("config", "--hostname", "box", "--domainname", "example.org", name)
    assert shop.do("run", name, "--", "hostname") == "box"
    assert shop.do("run", "--hostname", "other", name, "--", "hostname") == "other"
    assert "b x" in shop.do("config", "--hostname", "b x", name, code=2)
    shop.do("commit", name, "app:1")
    assert {"Hostname", "Domainname"}.isdisjoint(json.loads(shop.do("inspect", "--config", "app:1"))["config"])
    shop.do("config", "--hostname", "", name)
    assert shop.do("run", name, "--", "hostname") == usual
