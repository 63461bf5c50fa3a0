"""Specs of devices (CDI): what they say, which device a name means, and what is wrong with the bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagetool.errors import HostError, NotFound, UsageError
from imagetool.runtime.capabilities import held
from imagetool.runtime.cdi import Edits, read_devices
from imagetool.runtime.grants import with_devices, without_sandbox
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.spec import RuntimeSpec, build_step_spec
from imagetool.runtime.users import User

YAML = """\
cdiVersion: "0.6.0"
kind: vendor.com/net
annotations:
  org.mobyproject.buildkit.device.autoallow: "true"
containerEdits:
  env: [ALL=1]
devices:
- name: nic0
  containerEdits:
    env: [NIC=0]
    deviceNodes:
    - {path: /dev/nic, hostPath: /dev/null, permissions: r}
    mounts:
    - {hostPath: /opt/nic, containerPath: /nic, options: [ro, nosuid]}
    additionalGids: [44]
- name: "1"
  annotations: {org.mobyproject.buildkit.device.class: fast}
  containerEdits: {env: [NIC=1]}
"""


def spec(**about: Any) -> RuntimeSpec:
    return build_step_spec(
        args=["x"], env={"NIC": "old"}, cwd="/", user=User(0, 0, (7,)), hostname="h", sandbox=Sandbox(**about)
    )


def write(folder: Path, name: str, tree: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"cdiVersion": "0.6.0", "devices": [], **tree}))


def device(name: str, **edits: Any) -> dict[str, Any]:
    return {"name": name, "containerEdits": edits}


def test_a_yaml_spec_and_the_ways_to_name_its_devices(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(YAML)
    found = read_devices([tmp_path / "none", tmp_path])
    assert [one.qualified for one in found.known] == ["vendor.com/net=nic0", "vendor.com/net=1"]
    assert all(one.allowed for one in found.known)
    assert [one.name for one in found.find("vendor.com/net=1")] == ["1"]
    assert [one.name for one in found.find("vendor.com/net")] == ["nic0"]
    assert [one.name for one in found.find("vendor.com/net=*")] == ["nic0", "1"]
    assert [one.name for one in found.find("fast")] == ["1"]
    edits = found.find("vendor.com/net=nic0")[0].edits
    assert (edits.env, edits.gids) == (("ALL=1", "NIC=0"), (44,))
    with pytest.raises(NotFound, match=r"vendor\.com/net=2.* there are: vendor\.com/net=nic0"):
        found.find("vendor.com/net=2")
    for text in ("vendor.com/net=", "=x", "vendor=x", "v/c=a b"):
        with pytest.raises(UsageError, match="is no device"):
            found.find(text)


def test_a_later_directory_beats_an_earlier_one_and_two_files_of_one_are_refused(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, "a.json", {"kind": "v/c", "devices": [device("d", env=[f"WHERE={name}"])]})
    found = read_devices([tmp_path / "first", tmp_path / "second"])
    assert [one.edits.env for one in found.known] == [("WHERE=second",)]
    write(tmp_path / "second", "b.json", {"kind": "v/c", "devices": [device("d")]})
    with pytest.raises(HostError, match=r"v/c=d is described twice, by .*a\.json and .*b\.json"):
        read_devices([tmp_path / "second"])


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"cdiVersion": "9.0.0", "kind": "v/c"}, r"cdiVersion '9\.0\.0'"),
        ({"kind": "nokind"}, r"\$\.kind"),
        ({"kind": "v/c", "devices": [device("a b")]}, r"devices\[0\]\.name"),
        ({"kind": "v/c", "devices": [device("d", env=["NOVALUE"])]}, "NAME=VALUE"),
        ({"kind": "v/c", "devices": [device("d", deviceNodes=[{"path": "x"}])]}, "absolute path"),
        ({"kind": "v/c", "devices": [device("d", deviceNodes=[{"path": "/x", "permissions": "q"}])]}, "r, w and m"),
        ({"kind": "v/c", "devices": [device("d", hooks=[{"hookName": "x", "path": "/x"}])]}, "hookName"),
        ({"kind": "v/c", "devices": [device("d", additionalGids=["1"])]}, "number of a group"),
        ({"kind": "v/c", "devices": [device("d", intelRdt={"closID": "x"})]}, "not offered"),
        ({"kind": "v/c", "devices": [device("d", mounts=[{"hostPath": "/x"}])]}, "containerPath"),
    ],
)
def test_a_bad_spec_is_told_when_a_device_is_missing_and_harms_no_other(
    tmp_path: Path, tree: dict[str, Any], problem: str
) -> None:
    write(tmp_path, "bad.json", tree)
    write(tmp_path, "good.json", {"kind": "v/good", "devices": [device("d")]})
    found = read_devices([tmp_path])
    assert [one.qualified for one in found.known] == ["v/good=d"]
    with pytest.raises(NotFound, match=problem):
        found.find("v/c=d")


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: !!python/object:os.system {}", "\0"])
def test_yaml_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yml").write_text(text)
    found = read_devices([tmp_path])
    assert found.known == ()
    assert "bad.yml" in found.problems[0]


def test_what_a_device_changes_about_a_container(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(YAML)
    edits = read_devices([tmp_path]).find("vendor.com/net=nic0")[0].edits
    made = with_devices(spec(userns="default"), edits)
    process, mounts = made.tree["process"], {mount["destination"]: mount for mount in made.tree["mounts"]}
    assert process["env"] == ["NIC=0", "ALL=1"]
    assert process["user"]["additionalGids"] == [7, 44]
    assert (mounts["/dev/nic"]["source"], mounts["/nic"]["options"]) == ("/dev/null", ["bind", "ro", "nosuid"])
    assert made.device_rules == ({"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},)
    assert not made.may_be_unmapped
    assert "uidMappings" not in made.tree["linux"], "the files of devices belong to the host's root"
    plain = with_devices(spec(userns="default"), Edits(env=("A=1",)))
    assert plain.may_be_unmapped


@pytest.mark.parametrize("source", ["/dev/not-there", "/etc/passwd"])
def test_a_device_that_the_host_does_not_have_is_told(tmp_path: Path, source: str) -> None:
    nodes = [{"path": "/dev/x", "hostPath": source}]
    write(tmp_path, "a.json", {"kind": "v/c", "devices": [device("d", deviceNodes=nodes)]})
    with pytest.raises(HostError, match=source):
        with_devices(spec(), read_devices([tmp_path]).known[0].edits)


def test_without_a_sandbox_nothing_is_kept_back() -> None:
    made = without_sandbox(spec(userns="default"))
    linux, process = made.tree["linux"], made.tree["process"]
    assert process["capabilities"]["bounding"] == list(held())
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])
    assert not {"seccomp", "uidMappings"} & linux.keys()
    assert made.device_rules == ({"allow": True, "access": "rwm"},)
    assert not made.sandboxed
    assert all("ro" not in mount["options"] for mount in made.tree["mounts"] if mount["destination"] == "/sys")
