"""All instructions in one real build, and the mounts of RUN in real containers."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bases import unpack_image
from tests.support.command import imagetool

pytestmark = pytest.mark.root


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "file").write_text("file\n")
    with tarfile.open(folder / "files.tgz", "w:gz") as tar:
        member = tarfile.TarInfo("packed")
        member.size = 7
        tar.addfile(member, io.BytesIO(b"packed\n"))
    return folder


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A web server on loopback that has the file `fetched`."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web/fetched").write_text("fetched\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/fetched"
    server.shutdown()
    server.server_close()
    thread.join()


def built(store: Path, context: Path, dockerfile: str, *flags: str) -> Path:
    """Build, and return the unpacked root."""
    (context / "Dockerfile").write_text(dockerfile)
    imagetool("build", "-t", "x:1", *flags, context, root=store)
    number = len(list(context.parent.glob("tree-*")))
    return unpack_image(store, "x:1", context.parent / f"tree-{number}")


def test_all_eighteen(store: Path, context: Path, url: str) -> None:
    digest = hashlib.sha256(b"fetched\n").hexdigest()
    dockerfile = f"""\
ARG BASE=busybox
FROM $BASE AS first
MAINTAINER someone
ONBUILD RUN echo triggered > /triggered
ARG WHO=nobody
ENV GREETING="hello $WHO"
LABEL a=1
WORKDIR /work
COPY file ./
ADD files.tgz /unpacked/
ADD --checksum=sha256:{digest} {url} /web/
SHELL ["/bin/sh", "-ec"]
RUN echo $GREETING > greeting; false || echo went on >> greeting
RUN <<script
#!/bin/busybox sh
echo "by $0" > script
script
USER 12:34
RUN id -u > /tmp/id && id -g >> /tmp/id && pwd >> /tmp/id && echo $HOME >> /tmp/id
EXPOSE 80
VOLUME /data
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=1m CMD true
ENTRYPOINT ["/bin/cat"]
CMD ["/work/greeting"]
"""
    tree = built(store, context, dockerfile, "--build-arg", "WHO=world")
    assert (tree / "work/greeting").read_text() == "hello world\nwent on\n"
    assert (tree / "work/script").read_text() == "by /dev/pipes/script\n"
    assert (tree / "unpacked/packed").read_text() == "packed\n"
    assert (tree / "web/fetched").read_text() == "fetched\n"
    assert (tree / "tmp/id").read_text() == "12\n34\n/work\n/\n"
    assert not (tree / "triggered").exists()
    assert not (tree / "dev").exists(), "mount points are not committed"
    shown = json.loads(imagetool("inspect", "x:1", "--config", root=store).stdout)
    assert shown["author"] == "someone"
    config = shown["config"]
    assert {key: config[key] for key in config if key != "Env"} == {
        "User": "12:34",
        "ExposedPorts": {"80/tcp": {}},
        "Entrypoint": ["/bin/cat"],
        "Cmd": ["/work/greeting"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/work",
        "Labels": {"a": "1"},
        "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 60 * 10**9},
        "Shell": ["/bin/sh", "-ec"],
        "OnBuild": ["RUN echo triggered > /triggered"],
    }


def test_a_trigger_runs_in_the_child(store: Path, context: Path) -> None:
    built(store, context, "FROM busybox\nONBUILD RUN echo triggered > /t\n")
    imagetool("tag", "x:1", "trigger:1", root=store)
    assert (built(store, context, "FROM trigger:1\n") / "t").read_text() == "triggered\n"
    assert "OnBuild" not in json.loads(imagetool("inspect", "x:1", "--config", root=store).stdout)["config"]


def test_mounts(store: Path, context: Path) -> None:
    (context / "bound").mkdir()
    (context / "bound/secret").write_text("only seen\n")
    dockerfile = """\
FROM busybox AS other
RUN mkdir /made && echo made > /made/here
FROM busybox
WORKDIR /w
RUN --mount=target=/b,source=bound cat /b/secret > seen && ! echo > /b/new
RUN --mount=target=/b,source=bound,rw echo > /b/new && ls /b > listing
RUN --mount=type=bind,from=other,source=/made,target=made cat made/here > from
RUN --mount=type=tmpfs,target=/t,size=1m echo > /t/x && ! dd if=/dev/zero of=/t/big bs=1M count=2 && df -k /t > df
RUN --mount=type=cache,target=/c,id=i echo first >> /c/log
RUN --mount=type=cache,target=/other,id=i,sharing=locked cat /other/log > log && echo second >> /other/log
RUN --mount=type=cache,target=/c,id=i,ro cp /c/log both && ! echo >> /c/log
RUN --mount=type=secret,id=none [ ! -e /run/secrets/none ]
RUN --network=none [ "$(ls /sys/class/net)" = lo ]
"""
    tree = built(store, context, dockerfile)
    read = {name: (tree / "w" / name).read_text() for name in ("seen", "listing", "from", "log", "both")}
    assert read == {
        "seen": "only seen\n",
        "listing": "new\nsecret\n",
        "from": "made\n",
        "log": "first\n",
        "both": "first\nsecond\n",
    }
    assert not {"b", "t", "c", "other", "run"} & {path.name for path in tree.iterdir()}, "mount points stay out"
    assert not (tree / "w/made").exists()
    assert sorted(path.name for path in (context / "bound").iterdir()) == ["secret"], "the context is never written to"
    again = built(store, context, dockerfile.replace("echo first", "echo 1st"), "--no-cache")
    assert (again / "w/log").read_text() == "first\nsecond\n1st\n", "caches outlive builds"


def test_what_the_umask_and_stdin_are(store: Path, context: Path) -> None:
    tree = built(store, context, "FROM busybox\nRUN umask > /u && cat > /in && ls /proc/self/fd | wc -l > /fds\n")
    assert (tree / "u").read_text() == "0022\n"
    assert (tree / "in").read_text() == ""
    assert int((tree / "fds").read_text()) <= 4, "0, 1, 2 and the directory that ls reads"
