"""Which network is the default one here, and who is told: nothing falls back in silence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imagetool.errors import HostError
from imagetool.runtime.executors import Executor, executor_of
from imagetool.runtime.network import HOST, network_of
from imagetool.runtime.sandbox import Sandbox
from tests.support.command import imagetool
from tests.support.networks import (
    HELPERS,
    WARNING,
    installed,
)

pytestmark = pytest.mark.root


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
