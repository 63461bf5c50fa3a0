"""The compiled filter against libseccomp's, and against the conditions as they are written."""

from __future__ import annotations

import itertools
import json
import operator
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyseccomp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.errors import UsageError
from imagetool.runtime.seccomp.compiler import filter_of
from imagetool.runtime.seccomp.numbers import AUDIT, MACHINES, X32, numbers
from imagetool.runtime.seccomp.profile import checked, default_profile, resolve
from imagetool.runtime.security import DEFAULT_CAPABILITIES
from tests.support.bpf import ALLOW, ERRNO, call, instructions, run, verdict

ARCHES = {
    "SCMP_ARCH_X86_64": pyseccomp.Arch.X86_64,
    "SCMP_ARCH_X86": pyseccomp.Arch.X86,
    "SCMP_ARCH_AARCH64": pyseccomp.Arch.AARCH64,
    "SCMP_ARCH_ARM": pyseccomp.Arch.ARM,
}
COMPARE = {
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "EQ": operator.eq,
    "GE": operator.ge,
    "GT": operator.gt,
}
DEBIAN = Path("/usr/share/containers/seccomp.json")
#: First arguments worth a look: families, personalities, flags of clone, and the edges of 32 and 64 bits.
FIRST = [
    *(0, 1, 2, 8, 10, 16, 17, 38, 39, 40, 41),
    *(0x20000, 0x20008, 0x7E020000, 0x10000000, 0x02000000, 0x3D0F00, 0x1200011),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF),
]
WIDE = [1 << 32, (1 << 32) | 38, (1 << 32) | 2, (1 << 63), (1 << 64) - 1, 0xFFFFFFFF_00000000]
OTHERS = [(0, 0), (3, 9), (0x20000, 0xFFFFFFFF)]


def action(name: str, number: int | None) -> Any:
    if name == "SCMP_ACT_ERRNO":
        return pyseccomp.ERRNO(1 if number is None else number)
    if name == "SCMP_ACT_TRACE":
        return pyseccomp.TRACE(1 if number is None else number)
    return {
        "SCMP_ACT_ALLOW": pyseccomp.ALLOW,
        "SCMP_ACT_LOG": pyseccomp.LOG,
        "SCMP_ACT_TRAP": pyseccomp.TRAP,
        "SCMP_ACT_KILL_PROCESS": pyseccomp.KILL_PROCESS,
    }[name]


def peer(seccomp: Mapping[str, Any], architectures: Sequence[str]) -> bytes:
    """Return what libseccomp makes of the same rules."""
    default = action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    made = pyseccomp.SyscallFilter(defaction=default)
    made.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ERRNO(38))
    for name, arch in ARCHES.items():
        if (name in architectures) != made.exist_arch(arch):
            (made.add_arch if name in architectures else made.remove_arch)(arch)
    for rule in seccomp["syscalls"]:
        wanted = action(rule["action"], rule.get("errnoRet"))
        if wanted == default:
            continue
        for name in rule["names"]:
            conditions = [
                pyseccomp.Arg(
                    arg["index"],
                    getattr(pyseccomp, arg["op"].removeprefix("SCMP_CMP_")),
                    arg["value"],
                    arg.get("valueTwo", 0),
                )
                for arg in rule.get("args", ())
            ]
            try:
                made.add_rule(wanted, name, *conditions)
            except (RuntimeError, ValueError, OSError):  # a call this libseccomp does not know
                continue
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def differences(seccomp: Mapping[str, Any], machine: str) -> list[str]:
    """Compare over all system calls of the machine and its 32-bit one, and many arguments."""
    architectures = MACHINES[machine]
    ours = instructions(filter_of({**seccomp, "architectures": architectures}, machine))
    theirs = instructions(peer(seccomp, architectures))
    found = []
    for architecture in architectures:
        # libseccomp turns calls that i386 multiplexes into guesses about socketcall and ipc.
        names = {number: name for name, number in numbers(architecture).items() if name not in ("socketcall", "ipc")}
        known = {number: name for number, name in names.items() if is_known_to_peer(architecture, name)}
        wide = WIDE if architecture in ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64") else []
        for number, name in known.items():
            for arguments in itertools.product([*FIRST, *wide], *zip(*OTHERS, strict=True)):
                data = call(number, AUDIT[architecture], *arguments)
                (mine, looked), (other, other_looked) = run(ours, data), run(theirs, data)
                if mine != other:
                    found.append(f"{architecture} {name}{arguments}")
                if not looked and not other_looked:  # no other arguments can change what either says
                    break
    for data in (call(1, 0xDEAD), call(X32 | 1, AUDIT["SCMP_ARCH_X86_64"]), call(1, AUDIT["SCMP_ARCH_ARM"])):
        if verdict(ours, data) != verdict(theirs, data):
            found.append(f"elsewhere: {data[:8].hex()}")
    return found


def is_known_to_peer(architecture: str, name: str) -> bool:
    number = pyseccomp.resolve_syscall(ARCHES[architecture], name)
    return bool(number >= 0 or number == numbers(architecture)[name] or -999 < number < -100)


def test_the_numbers_are_libseccomps() -> None:
    for architecture, arch in ARCHES.items():
        known = {name: pyseccomp.resolve_syscall(arch, name) for name in numbers(architecture)}
        agreed = {name for name, number in known.items() if number == numbers(architecture)[name]}
        assert {name: number for name, number in known.items() if number >= 0 and name not in agreed} == {}
        assert len(agreed) > 0.85 * len(known)


@pytest.mark.parametrize("machine", sorted(MACHINES))
@pytest.mark.parametrize("capabilities", [DEFAULT_CAPABILITIES, (*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN")])
def test_our_profile_is_compiled_as_libseccomp_does(machine: str, capabilities: tuple[str, ...]) -> None:
    tree = resolve(default_profile(), capabilities=capabilities, machine=machine, kernel="6.1")
    assert differences(tree, machine) == []


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_podmans_profile_is_compiled_as_libseccomp_does(machine: str) -> None:
    if not DEBIAN.is_file():
        pytest.skip("needs golang-github-containers-common")
    profile = checked(json.loads(DEBIAN.read_bytes()))
    tree = resolve(profile, capabilities=DEFAULT_CAPABILITIES, machine=machine, kernel="6.1")
    # Its rules for AF_NETLINK overlap with different verdicts, where libseccomp's order is its own.
    tree["syscalls"] = [rule for rule in tree["syscalls"] if "socket" not in rule["names"] or len(rule["names"]) > 1]
    assert differences(tree, machine) == []


VALUES = st.one_of(st.sampled_from([*FIRST, *WIDE]), st.integers(0, (1 << 64) - 1))
OPERATORS = st.sampled_from([*COMPARE, "MASKED_EQ"])


@settings(max_examples=300, deadline=None)
@given(VALUES, OPERATORS, VALUES, VALUES, st.integers(0, 5))
def test_a_condition_compares_all_64_bits(value: int, name: str, wanted: int, second: int, index: int) -> None:
    argument = {"index": index, "op": f"SCMP_CMP_{name}", "value": wanted, "valueTwo": second}
    seccomp = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [argument]}],
    }
    program = instructions(filter_of(seccomp, "x86_64"))
    expected = value & wanted == second if name == "MASKED_EQ" else COMPARE[name](value, wanted)
    args = [0] * 6
    args[index] = value
    assert (verdict(program, call(41, AUDIT["SCMP_ARCH_X86_64"], *args)) == ALLOW) == expected


@st.composite
def profiles(draw: st.DrawFn) -> dict[str, Any]:
    """Profiles with one rule for a call: libseccomp 2.5 joins several with `!=` to what none of them says."""
    names = draw(st.lists(st.sampled_from(sorted(numbers("SCMP_ARCH_X86_64"))), unique=True, min_size=1, max_size=40))
    rules = []
    for name in names:
        verdict_of_name = draw(st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRAP", "SCMP_ACT_ERRNO"]))
        indexes = draw(st.lists(st.integers(0, 2), unique=True, max_size=3))
        args = [
            {
                "index": index,
                "op": f"SCMP_CMP_{draw(st.sampled_from(sorted(COMPARE)))}",
                "value": draw(st.sampled_from([*FIRST, *WIDE])),
            }
            for index in indexes
        ]
        rules.append({"names": [name], "action": verdict_of_name, "args": args, "errnoRet": 13})
    return {"defaultAction": draw(st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])), "syscalls": rules}


@settings(max_examples=150, deadline=None)
@given(profiles())
def test_any_profile_is_compiled_as_libseccomp_does(profile: dict[str, Any]) -> None:
    theirs = instructions(peer(profile, ("SCMP_ARCH_X86_64",)))
    ours = instructions(filter_of(profile, "x86_64"))
    names = {name for rule in profile["syscalls"] for name in rule["names"]}
    for name in names:
        number = numbers("SCMP_ARCH_X86_64")[name]
        if pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name) < 0:
            continue
        for first in [*FIRST, *WIDE]:
            for second, third in OTHERS:
                data = call(number, AUDIT["SCMP_ARCH_X86_64"], first, second, third)
                assert verdict(ours, data) == verdict(theirs, data), f"{name}({first:#x}, {second:#x}, {third:#x})"


def test_what_is_newer_than_our_tables_is_answered_as_by_an_older_kernel() -> None:
    program = instructions(filter_of({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}, "x86_64"))
    newest = max(numbers("SCMP_ARCH_X86_64").values())
    assert verdict(program, call(newest, AUDIT["SCMP_ARCH_X86_64"])) == ERRNO | 1
    assert verdict(program, call(newest + 1, AUDIT["SCMP_ARCH_X86_64"])) == ERRNO | 38
    permissive = instructions(filter_of({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}, "x86_64"))
    assert verdict(permissive, call(newest + 1, AUDIT["SCMP_ARCH_X86_64"])) == ALLOW


def test_machines_not_listed_and_x32_are_refused_even_where_all_is_allowed() -> None:
    program = instructions(filter_of({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}, "x86_64"))
    assert verdict(program, call(1, AUDIT["SCMP_ARCH_X86"])) == ERRNO | 38
    assert verdict(program, call(1 | X32, AUDIT["SCMP_ARCH_X86_64"])) == ERRNO | 38
    assert verdict(program, call(0xFFFFFFFF, AUDIT["SCMP_ARCH_X86_64"])) == ERRNO | 38
    assert verdict(program, call(1, AUDIT["SCMP_ARCH_X86_64"])) == ALLOW


def test_the_kernel_takes_a_filter_whose_jumps_are_far() -> None:
    rules = [
        {
            "names": ["ioctl"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 7,
            "args": [{"index": index, "op": "SCMP_CMP_EQ", "value": value} for index in (1, 2)],
        }
        for value in range(1000, 1300)
    ]
    program = filter_of({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}, "x86_64")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        from imagetool.runtime import syscalls

        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.install_seccomp_filter(program)
        os.write(write, b"alive")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(read, 9) == b"alive"
    os.close(read)
    os.close(write)


def test_a_profile_too_large_for_the_kernel_is_refused() -> None:
    rules = [
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": value}]}
        for value in range(2000)
    ]
    with pytest.raises(UsageError, match="4096"):
        filter_of({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}, "x86_64")
