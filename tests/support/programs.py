"""Tiny programs of other architectures, written by hand: they say hello and end with a status."""

from __future__ import annotations

import struct


def arm64_program(text: bytes, status: int) -> bytes:
    """Return a static executable for Linux on arm64."""
    code = struct.pack(
        "<8I",
        0xD2800020,  # mov x0, 1: stdout
        0x10000000 | 7 << 5 | 1,  # adr x1, the text, 28 bytes from here
        0xD2800002 | len(text) << 5,  # mov x2, its length
        0xD2800808,  # mov x8, 64: write
        0xD4000001,  # svc 0
        0xD2800000 | status << 5,  # mov x0, the status
        0xD2800BA8,  # mov x8, 93: exit
        0xD4000001,  # svc 0
    )
    base, start = 0x400000, 64 + 56
    size = start + len(code) + len(text)
    kind = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = kind + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + start, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return header + segment + code + text


def i386_socket_program(family: int, kind: int) -> bytes:
    """Return a static executable for Linux on i386 that makes a socket as glibc does there, by socketcall.

    It ends with the number of the error, or 256 less that of the descriptor.
    """
    base, start, length = 0x8048000, 52 + 32, 28
    code = (
        b"\xb8\x66\x00\x00\x00"  # mov eax, 102: socketcall
        b"\xbb\x01\x00\x00\x00"  # mov ebx, 1: socket
        + struct.pack("<BI", 0xB9, base + start + length)  # mov ecx, its arguments
        + b"\xcd\x80"  # int 0x80
        b"\x89\xc3\xf7\xdb"  # mov ebx, eax; neg ebx
        b"\x31\xc0\x40"  # xor eax, eax; inc eax: exit
        b"\xcd\x80"
    ).ljust(length, b"\x90")
    arguments = struct.pack("<3I", family, kind, 0)
    size = start + len(code) + len(arguments)
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + start, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    segment = struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000)
    return header + segment + code + arguments
