"""Rules 32 to 37: RUN; they share one build on busybox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagetool.api import Workplace, opened
from imagetool.image.image import load
from tests.support.bases import made_once
from tests.support.command import imagetool
from tests.support.workshop import tree

pytest_root = pytest.mark.root


RUN_RULES = """\
FROM busybox AS base
RUN echo 'user:x:101:201::/home/user:/bin/sh' >> /etc/passwd && echo 'grp:x:201:' >> /etc/group
RUN echo 32 > /r32 && [ "$(tr '\\000' ' ' < /proc/$$/cmdline | cut -c1-11)" = "/bin/sh -c " ]
ENTRYPOINT ["/never"]
RUN ["/bin/sh", "-c", "echo exec > /r32b"]
ARG V=arg
RUN { echo "$V $HOME $(umask) $(hostname)"; wc -c < /dev/stdin; } > /r33
USER 101
RUN { id -u; id -g; echo $HOME; } > /tmp/r34
USER 4242
RUN { id -u; id -g; echo $HOME; } > /tmp/r34b
USER user:0
RUN id -g > /tmp/r34c
USER root
RUN grep -q . /etc/resolv.conf; grep -q localhost /etc/hosts && echo seen > /r35
WORKDIR /w
RUN --mount=type=bind,source=ctx,target=m,rw echo written > m/new && cat m/file > /r36 && ls / > /r36ls
RUN --mount=type=cache,target=/cache echo 1 >> /cache/f && cat /cache/f > /r36c
RUN --mount=type=cache,target=/cache cat /cache/f > /r36d
VOLUME /vol
RUN mkdir -p /vol && echo kept > /vol/r37
SHELL ["/bin/sh", "-e", "-c"]
RUN echo $- | cat > /shell
RUN <<one
echo first > /heredoc
echo second >> /heredoc
one
RUN <<two
#!/bin/cat
script
two
"""


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Build `RUN_RULES` once; return path -> (entry, content)."""

    def make(root: Path) -> None:
        imagetool("base", "busybox", root=root)
        context = root / "context"
        (context / "ctx").mkdir(parents=True, exist_ok=True)
        (context / "ctx/file").write_text("bound\n")
        (context / "Dockerfile").write_text(RUN_RULES)
        imagetool("build", "-t", "ran", context, root=root)

    root = made_once(tmp_path_factory, "rules", make)
    with opened("ran", Workplace(root)) as (store, descriptor):
        return tree(load(store, descriptor))


def said(ran: dict[str, Any], name: str) -> str:
    text: bytes = ran[name][1]
    return text.decode().strip()


@pytest_root
def test_rule_32_shell_and_exec_form(ran: dict[str, Any]) -> None:
    assert said(ran, "r32").startswith("32")
    assert said(ran, "r32b") == "exec"
    assert said(ran, "heredoc") == "first\nsecond"
    assert "e" in said(ran, "shell")


@pytest_root
def test_rule_33_environment(ran: dict[str, Any]) -> None:
    first, size = said(ran, "r33").splitlines()
    assert first == "arg /root 0022 buildkitsandbox"
    assert size == "0"


@pytest_root
def test_rule_34_users(ran: dict[str, Any]) -> None:
    assert said(ran, "tmp/r34").split() == ["101", "201", "/home/user"]
    assert said(ran, "tmp/r34b").split() == ["4242", "0", "/"]
    assert said(ran, "tmp/r34c") == "0"


@pytest_root
def test_rule_35_files_of_the_network_are_not_committed(ran: dict[str, Any]) -> None:
    assert said(ran, "r35") == "seen"
    assert not {"etc/hosts", "etc/resolv.conf", "etc/hostname"} & set(ran)


@pytest_root
def test_rule_36_mounts(ran: dict[str, Any]) -> None:
    assert said(ran, "r36") == "bound"
    assert not [name for name in ran if name.startswith(("w/m", "cache"))]
    assert said(ran, "r36c") == said(ran, "r36d") == "1"


@pytest_root
def test_rule_37_volumes_keep_what_is_written(ran: dict[str, Any]) -> None:
    assert said(ran, "vol/r37") == "kept"
