"""The compiled filter against libseccomp's, and against the conditions as they are written.

No call is left out: not i386's socketcall and ipc, which stand for others; not x32's. Calls that this libseccomp has
no name for are held against the profile itself.
"""

from __future__ import annotations

import itertools
import json
import operator
import os
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyseccomp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.errors import UsageError
from imagetool.runtime.seccomp.compiler import filter_of
from imagetool.runtime.seccomp.numbers import AUDIT, MACHINES, PRIVATE, X32, multiplexed, numbers
from imagetool.runtime.seccomp.profile import checked, default_profile, resolve
from imagetool.runtime.security import DEFAULT_CAPABILITIES
from tests.support.bpf import ALLOW, ERRNO, call, instructions, run, verdict

ARCHES = {
    "SCMP_ARCH_X86_64": pyseccomp.Arch.X86_64,
    "SCMP_ARCH_X86": pyseccomp.Arch.X86,
    "SCMP_ARCH_AARCH64": pyseccomp.Arch.AARCH64,
    "SCMP_ARCH_ARM": pyseccomp.Arch.ARM,
    "SCMP_ARCH_X32": pyseccomp.Arch.X32,
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
#: First arguments worth a look: families, personalities, flags of clone, and the edges of 32 and 64 bits; all that
#: stand for a call in socketcall and ipc, with the version that ipc takes above them.
FIRST = [
    *(*range(26), 38, 39, 40, 41, 0x10001, 0x10015),
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
    """Return what libseccomp makes of the same rules. Raises FileExistsError for those that it finds in conflict."""
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
            if name in NAMED:
                made.add_rule(wanted, name, *conditions)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


#: Calls that libseccomp has a name for, on one machine at least.
NAMED = {
    name
    for architecture in AUDIT
    for name in numbers(architecture)
    if pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) != -1
}


def as_written(seccomp: Mapping[str, Any], name: str) -> int:
    """Return what a profile without conditions on `name` says of it."""
    for rule in seccomp["syscalls"]:
        if name in rule["names"]:
            assert not rule.get("args")
            return answer(rule["action"], rule.get("errnoRet"))
    return answer(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))


def answer(name: str, number: int | None) -> int:
    return {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO | (1 if number is None else number)}[name]


def differences(seccomp: Mapping[str, Any], machine: str, *, of: Container[str] | None = None) -> list[str]:
    """Compare over all numbers of the machine and its 32-bit ones, named or not, and many arguments.

    Args:
        of: compare these only.
    """
    architectures = MACHINES[machine]
    ours = instructions(filter_of({**seccomp, "architectures": architectures}, machine))
    theirs = instructions(peer(seccomp, architectures))
    found = []
    for architecture in architectures:
        names = {number: name for name, number in numbers(architecture).items()}
        base = X32 if architecture == "SCMP_ARCH_X32" else 0
        newest = max(number for number in names if number - base < PRIVATE)
        firsts = FIRST if architecture in ("SCMP_ARCH_X86", "SCMP_ARCH_ARM") else [*FIRST, *WIDE]
        for number in {*range(base, newest + 1), *names}:
            name = names.get(number, str(number))
            if of is not None and name not in of:
                continue
            if number in names and name not in NAMED:
                if verdict(ours, call(number, AUDIT[architecture])) != as_written(seccomp, name):
                    found.append(f"{architecture} {name}: not what the profile says")
                continue
            for arguments in itertools.product(firsts, *zip(*OTHERS, strict=True)):
                data = call(number, AUDIT[architecture], *arguments)
                (mine, looked), (other, other_looked) = run(ours, data), run(theirs, data)
                if mine != other:
                    found.append(f"{architecture} {name}{arguments}: {mine:#x}, libseccomp {other:#x}")
                if not looked and not other_looked:  # no other arguments can change what either says
                    break
    for data in (call(1, 0xDEAD), call(1, AUDIT["SCMP_ARCH_ARM"]), call(X32 | 1, AUDIT["SCMP_ARCH_X86_64"])):
        if verdict(ours, data) != verdict(theirs, data):
            found.append(f"elsewhere: {data[:8].hex()}")
    return found


def test_the_numbers_are_libseccomps() -> None:
    for architecture, arch in ARCHES.items():
        known = {name: pyseccomp.resolve_syscall(arch, name) for name in numbers(architecture)}
        agreed = {name for name, number in known.items() if number == numbers(architecture)[name]}
        assert {name: number for name, number in known.items() if number >= 0 and name not in agreed} == {}
        # It has other numbers of its own for what i386 has through socketcall and ipc too.
        differing = {name for name in known.keys() - agreed if known[name] != -1}
        assert differing <= {*multiplexed(architecture), *({"sync_file_range2"} & NAMED)}


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
    assert differences(tree, machine) == []


@pytest.mark.parametrize("without", [("socketcall",), ("ipc",), ("socketcall", "ipc")])
def test_what_may_be_called_may_be_called_through_socketcall_and_ipc(without: tuple[str, ...]) -> None:
    tree = resolve(default_profile(), capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel="6.1")
    for rule in tree["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in without]
    assert differences(tree, "x86_64") == []


def test_socketcall_that_is_answered_by_name_leads_to_no_other_call() -> None:
    tree = resolve(default_profile(), capabilities=DEFAULT_CAPABILITIES, machine="x86_64", kernel="6.1")
    for rule in tree["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != "socketcall"]
    tree["syscalls"].append({"names": ["socketcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38})
    assert differences(tree, "x86_64") == []
    program = instructions(filter_of(tree, "x86_64"))
    number = numbers("SCMP_ARCH_X86")["socketcall"]
    assert {verdict(program, call(number, AUDIT["SCMP_ARCH_X86"], first)) for first in FIRST} == {ERRNO | 38}


CONDITIONS: list[list[dict[str, Any]]] = [
    [],
    [{"index": 0, "op": "SCMP_CMP_EQ", "value": 38}],
    [{"index": 1, "op": "SCMP_CMP_NE", "value": 3}],
    [{"index": 0, "op": "SCMP_CMP_LE", "value": 2}, {"index": 2, "op": "SCMP_CMP_MASKED_EQ", "value": 1}],
]


@pytest.mark.parametrize("args", CONDITIONS)
@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"])
def test_each_call_of_socketcall_and_ipc_is_decided_as_by_libseccomp(default: str, args: list[dict[str, Any]]) -> None:
    other = "SCMP_ACT_ALLOW" if default == "SCMP_ACT_ERRNO" else "SCMP_ACT_ERRNO"
    names = sorted(multiplexed("SCMP_ARCH_X86"))
    judged = {"socketcall", "ipc", "read", *names}
    assert len(names) == 20 + 12
    for chosen in (names, names[::2], names[1::2], *(["read", name] for name in names)):
        # libseccomp 2.5 forgets i386 when all that it hears of are calls without a number there: thus with read.
        rules = [{"names": chosen, "action": other, "args": args, "errnoRet": 7}]
        assert differences({"defaultAction": default, "syscalls": rules}, "x86_64", of=judged) == []


def test_two_conditions_on_one_argument_are_alternatives_as_for_runc() -> None:
    args = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (1, 2)]
    rule = {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args}
    program = instructions(filter_of({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}, "x86_64"))
    assert [first for first in FIRST if verdict(program, call(41, AUDIT["SCMP_ARCH_X86_64"], first)) == ALLOW] == [1, 2]


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
def profiles(draw: st.DrawFn, machine: str) -> dict[str, Any]:
    """Profiles with one rule for a call that has a number on each of the machines.

    libseccomp 2.5 joins several rules with `!=` to what none of them says, and in a profile of few rules a call that
    one of the machines has not leads it to answer for others what no rule says.
    """
    known = sorted(set.intersection(*(set(numbers(architecture)) for architecture in MACHINES[machine])) & NAMED)
    some = draw(st.lists(st.sampled_from(known), unique=True, min_size=1, max_size=40))
    rules = []
    for name in dict.fromkeys(("read", *some)):
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


@pytest.mark.parametrize("machine", sorted(MACHINES))
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_profile_is_compiled_as_libseccomp_does(machine: str, data: st.DataObject) -> None:
    profile = data.draw(profiles(machine))
    theirs = instructions(peer(profile, MACHINES[machine]))
    ours = instructions(filter_of({**profile, "architectures": MACHINES[machine]}, machine))
    names = {name for rule in profile["syscalls"] for name in rule["names"]}
    for architecture in MACHINES[machine]:
        wide = [] if architecture in ("SCMP_ARCH_X86", "SCMP_ARCH_ARM") else WIDE
        known = numbers(architecture)
        for name in (names | {"socketcall", "ipc"}) & known.keys():
            for first in [*FIRST, *wide]:
                for second, third in OTHERS:
                    made = call(known[name], AUDIT[architecture], first, second, third)
                    told = f"{architecture} {name}({first:#x}, {second:#x}, {third:#x})"
                    assert verdict(ours, made) == verdict(theirs, made), told


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
