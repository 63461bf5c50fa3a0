"""Documents that we write are checked key by key: what the published schemas let through, we do not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from imagetool.cli.commands import running
from imagetool.errors import InvalidDocument
from imagetool.runtime.bundles.configshape import check_config
from imagetool.runtime.spec import build_step_spec
from imagetool.runtime.users import User
from imagetool.verbs.bundle import SYSTEMS
from tests.support.grammars import runtimespec

FREEBSD: dict[str, Any] = {"jail": {"host": "new", "vnet": "new", "enforceStatfs": 2, "allow": {"rawSockets": True}}}
SOLARIS: dict[str, Any] = {"milestone": "svc:/a:default", "limitpriv": "default", "cappedMemory": {"physical": "512m"}}
VM: dict[str, Any] = {"kernel": {"path": "/k"}, "hwConfig": {"vcpus": 1, "memory": 1 << 20}}


def config() -> dict[str, Any]:
    spec = build_step_spec(args=("/bin/sh",), env={"PATH": "/bin"}, cwd="/", user=User(), hostname="box")
    return copy.deepcopy(dict(spec.tree))


def test_what_the_executors_run_is_a_valid_config() -> None:
    check_config(config())
    check_config({**config(), "freebsd": FREEBSD, "solaris": SOLARIS, "vm": VM})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("bogus", 1),
        ("ociVersion", "2.0.0"),
        ("ociVersion", None),
        ("process.args", []),
        ("process.args", ["a\0b"]),
        ("process.cwd", "tmp"),
        ("process.env", ["=x"]),
        ("process.env", ["NAME"]),
        ("process.user.uid", -1),
        ("process.user.uid", 2**32),
        ("process.user.uid", True),
        ("process.user.umask", 0o1000),
        ("process.user.name", "root"),
        ("process.capabilities.bounding", ["CAP_FLY"]),
        ("process.capabilities.all", ["CAP_CHOWN"]),
        ("process.rlimits", [{"type": "NOFILE", "soft": 1, "hard": 1}]),
        ("root.readOnly", True),
        ("mounts", [{"type": "proc"}]),
        ("mounts", [{"destination": "proc"}]),
        ("mounts", [{"destination": "/proc", "flags": []}]),
        ("linux.namespaces", [{"type": "net"}]),
        ("linux.namespaces", [{"type": "pid"}, {"type": "pid"}]),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}]),
        ("linux.resources", {"memory": {"limits": 1}}),
        ("linux.resources", {"devices": [{"allow": False, "access": "rwx"}]}),
        ("linux.maskedPath", ["/x"]),
        ("hooks", {"prestart": []}),
        ("annotations", {"": "x"}),
        ("annotations", {"a": 1}),
    ],
)
def test_a_key_or_value_that_the_specification_does_not_have_is_refused(path: str, value: object) -> None:
    tree = config()
    *folders, key = path.split(".")
    inner = tree
    for folder in folders:
        inner = inner[folder]
    if value is None:
        del inner[key]
    else:
        inner[key] = value
    with pytest.raises(InvalidDocument, match=r"config.json: .*" + key.split("[")[0]):
        check_config(tree)


@pytest.mark.parametrize(
    ("section", "tree"),
    [
        ("freebsd", {"jail": {"vnet": "disable"}}),
        ("freebsd", {"jail": {"enforceStatfs": 300}}),
        ("freebsd", {"jail": {"enforceStatfs": 3}}),
        ("freebsd", {"jail": {"allow": {"suser": "yes"}}}),
        ("freebsd", {"jail": {"bogus": 1}}),
        ("freebsd", {"jail": {"sysvmsg": "shared"}}),
        ("freebsd", {"devices": [{"path": "pf", "mode": 0o1000}]}),
        ("solaris", {"limitpriv": 1}),
        ("solaris", {"cappedCPU": {"ncpus": 2}}),
        ("solaris", {"anet": [{"link": "net0"}]}),
        ("vm", {"kernel": {"path": 3}}),
        ("vm", {"kernel": {"path": "/k"}, "image": {"path": "/i", "format": "iso"}}),
        ("vm", {"kernel": {"path": "/k", "initramfs": "/i"}}),
    ],
)
def test_platform_sections_are_refused_by_the_writer_and_by_the_second_telling(section: str, tree: Any) -> None:
    with pytest.raises(InvalidDocument, match=section):
        check_config({**config(), section: tree})
    assert runtimespec.problems(section, tree)


@pytest.mark.parametrize(("section", "tree"), [("freebsd", FREEBSD), ("solaris", SOLARIS), ("vm", VM)])
def test_good_platform_sections_are_good_by_the_second_telling_too(section: str, tree: Any) -> None:
    assert runtimespec.problems(section, tree) == []


def test_the_command_line_offers_exactly_the_systems_that_there_are_writers_for() -> None:
    assert tuple(SYSTEMS) == running.SYSTEMS
