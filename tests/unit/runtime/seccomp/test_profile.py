"""Profiles: what is read, what is refused, what holds for which container, and what our own says."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.errors import ImagetoolError, InvalidDocument, NotFound, UsageError
from imagetool.runtime.seccomp.compiler import filter_of
from imagetool.runtime.seccomp.numbers import AUDIT, numbers
from imagetool.runtime.seccomp.profile import checked, default_profile, read_profile, resolve
from imagetool.runtime.security import DEFAULT_CAPABILITIES
from tests.support.bpf import ALLOW, ERRNO, call, instructions, verdict

X86_64, I386, X32 = "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"


def names_allowed(profile: dict[str, Any], **changed: Any) -> set[str]:
    given = {"capabilities": DEFAULT_CAPABILITIES, "machine": "x86_64", "kernel": "6.1.0-30-amd64"}
    tree = resolve(checked(profile), **{**given, **changed})
    return {name for rule in tree["syscalls"] for name in rule["names"]}


def rule(*names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **more}


def profile(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **more}


def test_rules_depend_on_capabilities_machine_and_kernel() -> None:
    given = profile(
        rule("mount", includes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("chroot", includes={"caps": ["CAP_SYS_CHROOT"]}),
        rule("clone", excludes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("ptrace", includes={"minKernel": "4.8"}),
        rule("kcmp", includes={"minKernel": "6.2"}),
        rule("tee", excludes={"minKernel": "4.8"}),
        rule("arch_prctl", includes={"arches": ["amd64", "x32"]}),
        rule("cacheflush", includes={"arches": ["arm", "arm64"]}),
        rule("read", excludes={"arches": ["amd64"]}),
    )
    assert names_allowed(given) == {"chroot", "clone", "ptrace", "arch_prctl"}
    assert "mount" in names_allowed(given, capabilities=["CAP_SYS_ADMIN"])
    assert "clone" not in names_allowed(given, capabilities=["CAP_SYS_ADMIN"])
    assert "kcmp" in names_allowed(given, kernel="6.10-rc1")
    assert {"cacheflush", "read"} <= names_allowed(given, machine="aarch64")


def test_both_dialects_say_which_error_it_is() -> None:
    given = profile(
        rule("a", action="SCMP_ACT_ERRNO", errnoRet=38),
        rule("b", action="SCMP_ACT_ERRNO", errno="EINVAL", errnoRet=1),
        rule("c", name="d"),
        defaultErrnoRet=38,
        defaultErrno="ENOSYS",
    )
    tree = resolve(checked(given), capabilities=(), machine="x86_64", kernel="6.1")
    assert tree["defaultErrnoRet"] == 38
    assert [entry.get("errnoRet") for entry in tree["syscalls"]] == [38, 22, None]
    assert tree["syscalls"][2]["names"] == ["d", "c"]


def test_the_32_bit_machine_is_filtered_when_the_profile_has_it() -> None:
    both = profile(archMap=[{"architecture": X86_64, "subArchitectures": [I386, X32]}])
    for source, expected in ((both, [X86_64, I386, X32]), (profile(architectures=[I386]), [I386]), (profile(), None)):
        tree = resolve(checked(source), capabilities=(), machine="x86_64", kernel="6.1")
        assert tree.get("architectures") == expected


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({}, "defaultAction"),
        (profile(default="x"), "unknown key 'default'"),
        (profile(rule("read", arg=[])), "unknown key 'arg'"),
        (profile(rule()), "without names"),
        (profile(rule("read", action="ALLOW")), "action 'ALLOW' is not supported"),
        (profile(rule("read", action="SCMP_ACT_NOTIFY")), "not supported"),
        (profile(rule("read", includes={"cap": []})), "unknown key 'cap'"),
        (profile(rule("read", includes={"minKernel": "new"})), "not a kernel version"),
        (profile(rule("read", includes={"caps": "CAP_X"})), "not a list"),
        (profile(rule("read", args=[{"index": 6, "op": "SCMP_CMP_EQ", "value": 0}])), "0 to 5"),
        (profile(rule("read", args=[{"index": 0, "op": "==", "value": 0}])), "unknown operator"),
        (profile(rule("read", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": -1}])), "64 bits"),
        (profile(rule("read", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": True}])), "64 bits"),
        (profile(rule("read", errno="EWHAT")), "no error's name"),
        (profile(rule("read", errnoRet=65536)), "no error number"),
        (profile(flags=["SECCOMP_FILTER_FLAG_ALL"]), "unknown flag"),
        (profile(listenerPath="/x"), "listener"),
    ],
)
def test_what_could_leave_a_hole_is_refused(broken: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        checked(broken)


def test_a_file_that_is_no_profile_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot be read"):
        read_profile(tmp_path / "none")
    with pytest.raises(NotFound, match="cannot be read"):
        read_profile(tmp_path)
    (tmp_path / "text").write_text("[]")
    with pytest.raises(InvalidDocument, match="seccomp profile"):
        read_profile(tmp_path / "text")


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["SCMP_ACT_ALLOW", "read"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("defaultAction", "defaultErrnoRet", "defaultErrno", "archMap", "architectures", "flags", "syscalls")
RULE = ("names", "name", "action", "errnoRet", "errno", "args", "includes", "excludes")


@settings(max_examples=500, deadline=None)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, TREES)),
    st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(RULE, TREES)), max_size=3),
    st.booleans(),
)
def test_any_json_is_a_profile_or_an_error_of_ours(tree: dict[str, Any], rules: list[Any], valid: bool) -> None:
    given = {**tree, "defaultAction": "SCMP_ACT_KILL", "syscalls": rules} if valid else tree
    with contextlib.suppress(ImagetoolError):
        assert filter_of(resolve(checked(given), capabilities=(), machine="x86_64", kernel="6.1"), "x86_64")


def test_a_profile_is_json_all_through() -> None:
    assert json.loads(json.dumps(default_profile())) == default_profile()
    assert checked(default_profile())
    known = set().union(*map(numbers, AUDIT))
    assert {name for entry in default_profile()["syscalls"] for name in entry["names"]} <= known


def answers(
    number_of: str, *args: int, capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES, where: str = X86_64
) -> int:
    tree = resolve(default_profile(), capabilities=capabilities, machine="x86_64", kernel=os.uname().release)
    program = instructions(filter_of(tree, "x86_64"))
    return verdict(program, call(numbers(where)[number_of], AUDIT[where], *args))


REFUSED = """
unshare setns mount umount2 pivot_root open_tree move_mount fsopen mount_setattr bpf perf_event_open add_key request_key
keyctl init_module finit_module delete_module kexec_load kexec_file_load reboot swapon iopl ioperm settimeofday
clock_settime acct quotactl open_by_handle_at userfaultfd syslog pidfd_getfd move_pages mbind _sysctl uselib nfsservctl
sethostname fanotify_init
"""


@pytest.mark.parametrize("name", REFUSED.split())
def test_what_changes_the_machine_below_the_container_is_refused(name: str) -> None:
    assert answers(name) == ERRNO | 1
    if name in numbers(I386):
        assert answers(name, where=I386) == ERRNO | 1


@pytest.mark.parametrize("name", ["clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"])
def test_what_programs_can_do_without_is_answered_as_by_an_older_kernel(name: str) -> None:
    assert answers(name) == ERRNO | 38
    assert answers(name, where=I386) == ERRNO | 38


def test_no_clone_makes_a_namespace() -> None:
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert answers("clone", flag | 17) == ERRNO | 1
    assert answers("clone", 0x1200011) == ALLOW
    assert answers("clone", 0x3D0F00) == ALLOW
    assert answers("clone", 0x10000000, capabilities=("CAP_SYS_ADMIN",)) == ALLOW


def test_sockets_are_those_of_the_network_and_the_kernel_cannot_be_fooled_about_the_family() -> None:
    for where in (X86_64, I386):
        assert {family for family in range(64) if answers("socket", family, where=where) == ALLOW} == {1, 2, 10, 16, 17}
        for high in (1 << 32, 0xFFFFFFFF << 32):  # the kernel takes an int: the upper half is not looked at
            for family in (38, 40):  # AF_ALG, CVE-2026-31431; AF_VSOCK
                assert answers("socket", high | family, where=where) == ERRNO | 1
            assert answers("socket", high | 2, where=where) == ALLOW
    assert answers("socketcall", 1, where=I386) == ALLOW  # glibc has no other way there


def test_a_capability_brings_its_calls() -> None:
    assert answers("chroot") == ALLOW
    assert answers("chroot", capabilities=()) == ERRNO | 1
    for name in ("mount", "unshare", "setns", "clone3"):
        assert answers(name, capabilities=("CAP_SYS_ADMIN",)) == ALLOW
    assert answers("init_module", capabilities=("CAP_SYS_MODULE",)) == ALLOW


def test_only_harmless_personalities_can_be_taken_on() -> None:
    allowed = {
        value
        for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0x40000, 0x400000)
        if answers("personality", value) == ALLOW
    }
    assert allowed == {0, 8, 0x20000, 0x20008, 0xFFFFFFFF}
