"""Entries of binfmt_misc: read as the kernel shows them, written as it takes them, matched as it matches."""

from __future__ import annotations

import pytest

from imagetool.errors import HostError
from imagetool.oci.platform import Platform
from imagetool.runtime.emulation import emulated, header_of, read_entry, registration, runs_natively
from tests.support.programs import arm64_program

AMD64 = Platform()
SHOWN = """\
enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""


def test_an_entry_is_read_and_matches_programs_of_its_architecture() -> None:
    entry = read_entry("qemu-aarch64", SHOWN)
    assert entry is not None
    assert (entry.interpreter, entry.flags, entry.enabled) == (
        "/usr/libexec/qemu-binfmt/aarch64-binfmt-P",
        "POCF",
        True,
    )
    assert entry.matches(arm64_program(b"x", 0)[:20])
    assert entry.matches(header_of("arm64"))
    assert not entry.matches(header_of("amd64"))
    assert not entry.matches(b"\x7fELF")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "enabled\ninterpreter /usr/bin/python3\nflags: \nextension .py\n",
        "enabled\ninterpreter /x\nflags: F\noffset 4\nmagic 00\n",
        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic zz\n",
        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 0000\nmask ff\n",
    ],
)
def test_other_entries_are_passed_over(text: str) -> None:
    assert read_entry("x", text) is None


def test_a_disabled_entry_says_so() -> None:
    entry = read_entry("x", SHOWN.replace("enabled", "disabled"))
    assert entry is not None
    assert not entry.enabled


def test_a_registration_is_one_line_of_printable_characters_without_a_stray_colon() -> None:
    line = registration("s390x", "/usr/bin/qemu-s390x-static").decode()
    assert line.isascii()
    assert line.isprintable()
    _, name, kind, offset, magic, mask, interpreter, flags = line.split(":")
    assert (name, kind, offset, interpreter, flags) == ("imagetool-s390x", "M", "", "/usr/bin/qemu-s390x-static", "F")
    assert magic.count("\\x") == mask.count("\\x") == 20
    assert magic.endswith("\\x00\\x02\\x00\\x16"), "big endian"


def test_a_processor_runs_its_own_and_its_elders() -> None:
    assert runs_natively(Platform(architecture="386"), AMD64)
    assert runs_natively(Platform(architecture=""), AMD64)
    assert not runs_natively(Platform(architecture="arm64"), AMD64)
    assert not runs_natively(AMD64, Platform(architecture="arm64"))


def test_an_architecture_without_an_emulator_is_an_error() -> None:
    with pytest.raises(HostError, match="no emulator for linux/wasm"), emulated(Platform(architecture="wasm"), AMD64):
        pass
