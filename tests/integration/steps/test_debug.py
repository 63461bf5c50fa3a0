"""A failed step is kept, can be looked into as it was, and its error points at what is wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.steps.conftest import Shop

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox AS tools
RUN echo tool > /tool
FROM busybox
ARG V=7
ARG WHERE=/in
ENV A=1
WORKDIR /w
USER 1000:50
RUN --mount=type=bind,source=sub,target=$WHERE --mount=type=bind,from=tools,source=/tool,target=/t \\
    --mount=type=secret,id=s,env=TOKEN --mount=type=cache,target=/c,uid=1000 \\
    echo before > /tmp/out; echo cached > /c/x; test -n "$TOKEN" && exit 42
"""


def fail(shop: Shop, *options: str, text: str = DOCKERFILE) -> str:
    (shop.folder / "Dockerfile").write_text(text)
    (shop.folder.parent / "secret").write_text("s3cretvalue")
    secret = ("--secret", f"id=s,src={shop.folder.parent / 'secret'}")
    return shop.do("build", "-t", "where/app:1", *secret, *options, ".", code=1)


def test_a_failed_step_is_kept_and_can_be_entered_as_it_was(shop: Shop) -> None:
    said = fail(shop, "--keep-on-failure")
    assert "returned exit code 42" in said
    assert said.strip().endswith(f"imagetool --root {shop.root} debug app-failed")
    script = 'id -u; id -g; pwd; echo $A $V; cat /tmp/out /in/inner /t /c/x; echo "<$TOKEN>"; ls /run/secrets'
    seen = shop.do("debug", "--", "sh", "-c", f"{script}; true").split("\n")
    assert seen == ["1000", "50", "/w", "1 7", "before", "inner", "tool", "cached", "<>"]
    shop.do("debug", "app-failed", "--", "sh", "-c", 'TOKEN=x; export TOKEN; eval "$FAILED_STEP"', code=42)
    records = [path.read_bytes() for path in (shop.root / "containers").rglob("*.json")]
    assert records
    assert not any(b"s3cretvalue" in raw for raw in records)


def test_what_is_changed_there_stays_and_the_rest_of_the_commands_take_it(shop: Shop) -> None:
    fail(shop, "-q", "--keep-on-failure")
    fail(shop, "-q", "--keep-on-failure")
    listed = json.loads(shop.do("containers", "--json"))
    assert [one["containername"] for one in listed] == ["app-failed", "app-failed-1"]
    assert all(one["failed"].startswith("RUN --mount") for one in listed)
    shop.do("debug", "app-failed", "--", "sh", "-c", "echo fixed > /tmp/out; exit 3", code=3)
    assert shop.do("run", "app-failed", "cat", "/tmp/out") == "fixed"
    assert shop.do("debug", "--", "cat", "/tmp/out") == "before", "without a name it is the last one"
    shop.do("commit", "--rm", "app-failed", "saved")
    assert "exit code 42" in shop.do("history", "saved")
    shop.do("rm", "-a")
    assert "--keep-on-failure" in shop.do("debug", code=3)


def test_without_being_asked_nothing_is_kept(shop: Shop) -> None:
    assert "debug" not in fail(shop)
    assert shop.do("containers", "-q") == ""


def test_a_step_that_left_its_secret_in_a_file_is_not_kept(shop: Shop) -> None:
    text = "FROM busybox\nRUN --mount=type=secret,id=s cp /run/secrets/s /kept; exit 5\n"
    said = fail(shop, "--keep-on-failure", text=text)
    assert "exit code 5" in said
    assert "cannot be kept" in said
    assert shop.do("containers", "-q") == ""


def test_a_script_that_failed_and_a_context_that_is_gone(shop: Shop) -> None:
    text = "FROM busybox\nRUN --mount=target=/ctx <<E\n#!/bin/sh\ncat /ctx/hello.txt; exit 6\nE\n"
    fail(shop, "--keep-on-failure", text=text)
    assert shop.do("debug", "--", "sh", "-c", "$FAILED_STEP", code=6) == ""
    assert shop.do("debug", "--", "cat", "/ctx/hello.txt") == "hello"
    moved = shop.folder.rename(shop.folder.with_name("moved"))
    shop.folder = moved
    assert "left out" in shop.do("debug", "--", "cat", "/ctx/hello.txt", code=1)


def test_a_shell_says_what_failed_and_has_a_terminal_when_we_have(shop: Shop) -> None:
    fail(shop, "--keep-on-failure")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "imagetool", "--root", str(shop.root), "debug"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    seen = b""
    typed = False
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        ready, _, _ = select.select([master], [], [], 1)
        try:
            seen += os.read(master, 65536) if ready else b""
        except OSError:  # the other side has closed
            break
        if b"$ \x1b[6n" in seen and not typed:  # busybox has put the terminal in its mode and asks where the cursor is
            typed = True
            os.write(master, b"\x1b[1;1Rtty; id -u; exit 9\n")
    assert process.wait(30) == 9, seen
    os.close(master)
    text = seen.decode()
    assert "left by Dockerfile:9, which ended with exit code 42" in text
    assert "RUN --mount=type=bind,source=sub" in text
    assert re.search(r"/dev/pts/0\r\n1000\r\n", text), text


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("COPY hello.txt missing.txt /x/", "missing.txt"),
        ("COPY *.nope /x/", "*.nope"),
        ("COPY --chown=nobodyhere hello.txt /x", "nobodyhere"),
        ("COPY --chmod=abc hello.txt /x", "abc"),
        ("ADD hello.txt /bin/sh/x", "/bin/sh/x"),
        ("WORKDIR /bin/sh", "/bin/sh"),
    ],
)
def test_the_caret_stands_under_the_word_that_is_wrong(shop: Shop, line: str, wrong: str) -> None:
    (shop.folder / "Dockerfile").write_text(f"FROM busybox\n{line}\n")
    shown = shop.do("build", "-q", ".", code=1).split("\n")
    (marked,) = [text for text in shown if ">>>" in text]
    carets = shown[shown.index(marked) + 1]
    assert marked[carets.index("^") : carets.rindex("^") + 1] == wrong


def test_an_interrupt_leaves_no_container_and_no_folder(shop: Shop, tmp_path: Path) -> None:
    (shop.folder / "Dockerfile").write_text("FROM busybox\nRUN echo started; sleep 4321\n")
    command = [sys.executable, "-m", "imagetool", "--root", str(shop.root), "build", "--keep-on-failure"]
    log = tmp_path / "log"
    with open(log, "w") as output:
        process = subprocess.Popen([*command, str(shop.folder)], stdout=output, stderr=output)
    deadline = time.monotonic() + 60
    while "  started" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(2)
    assert process.wait(60) == 130, log.read_text()
    assert shop.do("containers", "-q") == ""
    assert [path.name for path in (shop.root / "snapshots").iterdir() if path.name.startswith("new-")] == []
