"""Compile `linux.seccomp` of the OCI config to a classic BPF program.

Of several rules for a call the one without conditions wins, as in libseccomp; conditions are
tried in the profile's order. Calls of a machine that is not listed, x32 among them, and those newer than our
tables are answered ENOSYS, so that programs fall back to what they used before.

On i386 a rule holds for a call however it is made: by its number, or through socketcall or ipc. There the filter
sees which call it is, but for the first two arguments of most only a pointer: as in libseccomp, a condition on the
first is left out, and those on others look at what they can. A profile that must not have socketcall has to name it.

Source: runtime-spec v1.2 config-linux.md "Seccomp"; seccomp(2); seccomp_rule_add(3);
include/uapi/linux/seccomp.h, bpf_common.h.
"""

from __future__ import annotations

import errno
import functools
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from imagetool.errors import UsageError
from imagetool.runtime.seccomp.numbers import AUDIT, MACHINES, NARROW, PRIVATE, X32, multiplexed, numbers
from imagetool.values import dataclass

_LOAD, _AND, _JUMP, _EQUAL, _GREATER, _AT_LEAST, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_LOW: Final = 0xFFFFFFFF
_FAR: Final = 255  # instructions that a conditional jump can skip
_ERRNO: Final = 0x00050000
_ACTIONS: Final = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_DATA: Final = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_MOST: Final = 4096  # instructions of a program: BPF_MAXINSNS

#: What this compiler knows; the profile's reader refuses all else.
ACTIONS: Final = frozenset(_ACTIONS)
OPERATORS: Final = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))


def filter_of(seccomp: Mapping[str, Any], machine: str) -> bytes:
    """Return the filter for containers on `machine`, as os.uname() names it; b"" where we have no tables.

    The result is remembered: builds ask for the same one again and again. Raises UsageError for more
    rules than the kernel takes.
    """
    return _compiled(json.dumps(seccomp, sort_keys=True), machine)


@functools.lru_cache(maxsize=8)
def _compiled(text: str, machine: str) -> bytes:
    seccomp = json.loads(text)
    listed = seccomp.get("architectures", ())
    native, *others = MACHINES.get(machine, ("",))
    if not native:
        return b""
    program = _Program()
    rest = program.answer(_ERRNO | errno.ENOSYS)
    for name in reversed([native, *(name for name in others if name in listed and name != "SCMP_ARCH_X32")]):
        calls = _tree(program, _intervals(seccomp, name), wide=name not in NARROW)
        if name == "SCMP_ARCH_X86_64":
            if "SCMP_ARCH_X32" in listed:
                x32 = _tree(program, _intervals(seccomp, "SCMP_ARCH_X32"), wide=False)
            else:
                x32 = program.answer(_ERRNO | errno.ENOSYS)
            calls = program.branch(_AT_LEAST, X32, x32, calls)
        calls = program.load(_NUMBER, calls)
        rest = program.branch(_EQUAL, AUDIT[name], calls, rest)
    program.load(_ARCHITECTURE, rest)
    return program.assembled()


class _Program:
    """Instructions, written from the last to the first, so that where a jump goes is always known.

    A label is the number of instructions from its own to the end.
    """

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []

    def _add(self, code: int, value: int, if_true: int = 0, if_false: int = 0) -> int:
        self._reversed.append((code, if_true, if_false, value))
        return len(self._reversed)

    def answer(self, value: int) -> int:
        """End with a verdict."""
        return self._add(_RETURN, value)

    def load(self, offset: int, then: int) -> int:
        """Load a word of the call's data."""
        self._continue(then)
        return self._add(_LOAD, offset)

    def mask(self, value: int, then: int) -> int:
        """Clear the bits of the word that are not in `value`."""
        self._continue(then)
        return self._add(_AND, value)

    def branch(self, comparison: int, value: int, yes: int, no: int) -> int:
        """Go on at `yes` or `no`."""
        yes = self._near(yes, reserve=1)
        no = self._near(no, reserve=0)
        return self._add(comparison, value, len(self._reversed) - yes, len(self._reversed) - no)

    def _near(self, label: int, *, reserve: int) -> int:
        """Return a label within a conditional jump's reach that leads to `label`."""
        if len(self._reversed) - label + reserve <= _FAR:
            return label
        return self._add(_JUMP, len(self._reversed) - label)

    def _continue(self, label: int) -> None:
        if label != len(self._reversed):
            self._add(_JUMP, len(self._reversed) - label)

    def assembled(self) -> bytes:
        if len(self._reversed) > _MOST:
            raise UsageError(f"the seccomp profile needs more than the {_MOST} instructions that the kernel takes")
        return b"".join(struct.pack("HBBI", *instruction) for instruction in reversed(self._reversed))


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What becomes of a call: `value` when no choice's conditions hold."""

    value: int
    choices: tuple[tuple[int, tuple[_Condition, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class _Condition:
    argument: int
    operator: str
    value: int
    second: int


def _alternatives(rule: Mapping[str, Any]) -> list[tuple[_Condition, ...]]:
    """Return what a rule asks for: all its conditions; or any one when two look at the same argument, as runc does."""
    conditions = [
        _Condition(arg["index"], arg["op"], arg["value"], arg.get("valueTwo", 0)) for arg in rule.get("args") or ()
    ]
    if len({condition.argument for condition in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _answer_of(rule: Mapping[str, Any], action: str, number: str) -> int:
    value = _ACTIONS[rule[action]]
    return value | rule.get(number, errno.EPERM) & 0xFFFF if rule[action] in _WITH_DATA else value


def _intervals(seccomp: Mapping[str, Any], architecture: str) -> list[tuple[int, _Verdict]]:
    """Return where in the sequence of numbers which verdict begins, from 0 on."""
    default = _answer_of(seccomp, "defaultAction", "defaultErrnoRet")
    known, through = numbers(architecture), multiplexed(architecture)
    fixed: dict[int, int] = {}
    choices: dict[int, list[tuple[int, tuple[_Condition, ...]]]] = {}
    for rule in seccomp.get("syscalls", ()):
        value = _answer_of(rule, "action", "errnoRet")
        if value == default:
            continue
        for conditions in _alternatives(rule):
            for number in {known[name] for name in rule["names"] if name in known}:
                if conditions:
                    choices.setdefault(number, []).append((value, conditions))
                else:
                    fixed.setdefault(number, value)
            for number, first in sorted({through[name] for name in rule["names"] if name in through}):
                first_is = _Condition(0, "SCMP_CMP_EQ", first, 0)
                others = tuple(condition for condition in conditions if condition.argument)
                at = choices.setdefault(number, [])
                # What is said of the call whatever its arguments wins, as it does when made by its number.
                at.insert(len(at) if others else 0, (value, (first_is, *others)))
    verdicts = {number: _Verdict(default, tuple(found)) for number, found in choices.items()}
    verdicts |= {number: _Verdict(value) for number, value in fixed.items()}
    base = X32 if architecture == "SCMP_ARCH_X32" else 0
    newest = max(number for number in known.values() if number - base < PRIVATE)
    for number in known.values():
        if number > newest:  # a machine's own, above all others
            verdicts.setdefault(number, _Verdict(default))
    permissive = default in (_ACTIONS["SCMP_ACT_ALLOW"], _ACTIONS["SCMP_ACT_LOG"])
    beyond = _Verdict(default if permissive else _ERRNO | errno.ENOSYS)
    starts = [(0, _Verdict(default)), (newest + 1, beyond)]
    for number, verdict in verdicts.items():
        starts.append((number, verdict))
        if number + 1 not in verdicts:
            starts.append((number + 1, beyond if number >= newest else _Verdict(default)))
    found: list[tuple[int, _Verdict]] = []
    for number, verdict in sorted(dict(starts).items()):
        if not found or found[-1][1] != verdict or verdict.choices:
            found.append((number, verdict))
    return found


def _tree(program: _Program, intervals: Sequence[tuple[int, _Verdict]], *, wide: bool) -> int:
    """Write a binary search over the numbers."""
    if len(intervals) == 1:
        return _leaf(program, intervals[0][1], wide=wide)
    middle = len(intervals) // 2
    above = _tree(program, intervals[middle:], wide=wide)
    below = _tree(program, intervals[:middle], wide=wide)
    return program.branch(_AT_LEAST, intervals[middle][0], above, below)


def _leaf(program: _Program, verdict: _Verdict, *, wide: bool) -> int:
    label = program.answer(verdict.value)
    for value, conditions in reversed(verdict.choices):
        otherwise, label = label, program.answer(value)
        for condition in reversed(conditions):
            label = _test(program, condition, label, otherwise, wide=wide)
    return label


def _test(program: _Program, condition: _Condition, yes: int, no: int, *, wide: bool) -> int:
    """Write one comparison of an argument, unsigned: of 64 bits, of which BPF sees two halves, or of the lower 32."""
    operator = condition.operator.removeprefix("SCMP_CMP_")
    low = _ARGUMENTS + 8 * condition.argument
    value, masks = condition.value, (_LOW, _LOW)
    if operator == "MASKED_EQ":
        masks = (condition.value & _LOW, condition.value >> 32)
        value = condition.second
    halves = (value & _LOW, value >> 32)
    if operator in ("NE", "LT", "LE"):  # the opposite of EQ, GE, GT
        yes, no = no, yes
    if operator in ("EQ", "NE", "MASKED_EQ"):
        for offset, half, mask in list(zip((low, low + 4), halves, masks, strict=True))[: 2 if wide else 1]:
            yes = program.branch(_EQUAL, half, yes, no)
            if mask != _LOW:
                yes = program.mask(mask, yes)
            yes = program.load(offset, yes)
        return yes
    lower = program.branch(_AT_LEAST if operator in ("GE", "LT") else _GREATER, halves[0], yes, no)
    lower = program.load(low, lower)
    if not wide:
        return lower
    equal = program.branch(_EQUAL, halves[1], lower, no)
    higher = program.branch(_GREATER, halves[1], yes, equal)
    return program.load(low + 4, higher)
