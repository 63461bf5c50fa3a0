"""An interpreter of the classic BPF that seccomp filters are written in, and the data of a system call."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000


def call(number: int, architecture: int, *args: int) -> bytes:
    """Return struct seccomp_data."""
    return struct.pack("IIQ6Q", number, architecture, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])


def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    """Return (code, jump if true, jump if false, value) of each; a jump past the end or back cannot be."""
    assert len(program) % 8 == 0
    return list(struct.iter_unpack("HBBI", program))


def verdict(program: Sequence[tuple[int, int, int, int]], data: bytes) -> int:
    """Run a program over a call. Raises KeyError for an instruction that the kernel would refuse."""
    return run(program, data)[0]


def run(program: Sequence[tuple[int, int, int, int]], data: bytes) -> tuple[int, bool]:
    """Do the same; say also whether the verdict has anything to do with the call's arguments."""
    words = struct.unpack("16I", data)
    at, accumulator, looked = 0, 0, False
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x20:
            accumulator = words[value // 4]
            looked = looked or value >= 16
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            at += value
        elif code == 0x15:
            at += if_true if accumulator == value else if_false
        elif code == 0x25:
            at += if_true if accumulator > value else if_false
        elif code == 0x35:
            at += if_true if accumulator >= value else if_false
        elif code == 0x06:
            return value, looked
        else:
            raise KeyError(code)
