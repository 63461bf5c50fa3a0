"""The description of a container that every executor gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagetool.errors import UsageError
from imagetool.runtime.network import NONE
from imagetool.runtime.security import DEFAULT_CAPABILITIES
from imagetool.runtime.spec import Mount, RuntimeSpec, build_step_spec
from imagetool.runtime.users import User


def step(**changed: Any) -> RuntimeSpec:
    given = {"args": ["true"], "env": {"A": "b=c"}, "cwd": "/", "user": User(1, 2, (3,)), "hostname": "box"}
    return build_step_spec(**{**given, **changed})


def test_a_step_has_fresh_namespaces_and_no_inheritable_capabilities() -> None:
    tree = json.loads(step().json())
    assert [entry["type"] for entry in tree["linux"]["namespaces"]] == ["mount", "pid", "uts", "ipc", "cgroup"]
    capabilities = tree["process"]["capabilities"]
    assert capabilities["bounding"] == capabilities["effective"] == capabilities["permitted"]
    assert capabilities["bounding"] == list(DEFAULT_CAPABILITIES)
    assert not {"inheritable", "ambient"} & capabilities.keys()
    assert "CAP_SYS_ADMIN" not in DEFAULT_CAPABILITIES
    assert tree["process"]["env"] == ["A=b=c"]
    assert tree["process"]["user"] == {"uid": 1, "gid": 2, "umask": 0o022, "additionalGids": [3]}


def test_no_network_is_a_network_namespace_of_its_own() -> None:
    kinds = [entry["type"] for entry in step(network=NONE).tree["linux"]["namespaces"]]
    assert "network" in kinds


def test_mounts_of_the_step_come_after_the_default_ones() -> None:
    mount = Mount("/etc/hosts", "bind", "/tmp/hosts", ("bind", "ro"))
    destinations = [entry["destination"] for entry in step(mounts=[mount]).tree["mounts"]]
    assert destinations[0] == "/proc"
    assert destinations[-1] == "/etc/hosts"


@pytest.mark.parametrize(
    "changed",
    [
        {"args": []},
        {"args": [""]},
        {"args": ["a\0b"]},
        {"env": {"A": "\0"}},
        {"cwd": "relative"},
        {"cwd": "/\0"},
        {"hostname": "\0"},
    ],
)
def test_what_no_kernel_can_be_given_is_a_usage_error(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        step(**changed)


def test_a_relative_mount_point_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not an absolute path"):
        Mount("etc/hosts", "bind", "/tmp/hosts")
