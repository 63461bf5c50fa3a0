"""The filter of `fakeids`, run by an interpreter of classic BPF over every system call number."""

from __future__ import annotations

import os
import stat

import pytest

from imagetool.runtime.fakeids import fake_ids_filter
from tests.support.bpf import ALLOW, ERRNO, call, instructions, verdict

PRETEND = ERRNO


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
def test_only_owners_identities_and_devices_are_pretended() -> None:
    program, here = instructions(fake_ids_filter()), 0xC000003E
    pretended = {number for number in range(500) if verdict(program, call(number, here)) == PRETEND}
    assert pretended == {92, 93, 94, 260, 105, 106, 113, 114, 116, 117, 119, 122, 123}
    for mode, expected in (
        (stat.S_IFCHR | 0o666, PRETEND),
        (stat.S_IFBLK, PRETEND),
        (stat.S_IFIFO | 0o600, ALLOW),
        (stat.S_IFSOCK, ALLOW),
        (stat.S_IFREG, ALLOW),
        (0, ALLOW),
    ):
        assert verdict(program, call(133, here, 0, mode)) == expected
        assert verdict(program, call(259, here, 0, 0, mode)) == expected
    assert verdict(program, call(92, 0x40000003)) == ALLOW
