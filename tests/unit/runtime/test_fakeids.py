"""The filter of `fakeids`, run by an interpreter of classic BPF over every system call number."""

from __future__ import annotations

import os
import stat
import struct

import pytest

from imagetool.runtime.fakeids import fake_ids_filter

ALLOW, PRETEND = 0x7FFF0000, 0x00050000


def verdict(program: bytes, data: bytes) -> int:
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            at += if_true if accumulator == value else if_false
        else:
            assert code == 0x06
            return int(value)


def data(number: int, architecture: int, *args: int) -> bytes:
    return struct.pack("IIQ6Q", number, architecture, 0, *(*args, 0, 0, 0, 0, 0, 0)[:6])


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_only_owners_identities_and_devices_are_pretended() -> None:
    program, here = fake_ids_filter(), 0xC000003E
    pretended = {number for number in range(500) if verdict(program, data(number, here)) == PRETEND}
    assert pretended == {92, 93, 94, 260, 105, 106, 113, 114, 116, 117, 119, 122, 123}
    for mode, expected in (
        (stat.S_IFCHR | 0o666, PRETEND),
        (stat.S_IFBLK, PRETEND),
        (stat.S_IFIFO | 0o600, ALLOW),
        (stat.S_IFSOCK, ALLOW),
        (stat.S_IFREG, ALLOW),
        (0, ALLOW),
    ):
        assert verdict(program, data(133, here, 0, mode)) == expected
        assert verdict(program, data(259, here, 0, 0, mode)) == expected
    assert verdict(program, data(92, 0x40000003)) == ALLOW
