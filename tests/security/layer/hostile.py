"""What the hostile layers of these tests are made from, and how they are applied."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, Whiteouts, unpack
from tests.support.tars import END, chunks, extended, header, record

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners and devices")


ROOT = os.geteuid() == 0


OWNERSHIP = Ownership() if ROOT else Ownership(lenient=True)


SECRET = b"the canary's secret"


def ignore(text: str) -> None:
    """Take a warning that a test does not look at."""


def apply(place: Path, *layers: bytes, whiteouts: Whiteouts = "apply", ownership: Ownership = OWNERSHIP) -> Path:
    target = place / "target"
    for number, layer in enumerate(layers):
        where = f"layer {number}"
        unpack(
            read(chunks(layer + END), where=where),
            target,
            where=where,
            whiteouts=whiteouts,
            ownership=ownership,
            warn=ignore,
        )
    return target


def link(name: bytes, target: bytes, flag: bytes = b"2") -> bytes:
    """Return a symlink, its target in an extended header so that it may be long."""
    return extended(b"x", record(b"linkpath", target)) + header(name, flag, linkname=b"too long")


def folder(name: bytes, **fields: int) -> bytes:
    return header(name + b"/", b"5", mode=fields.get("mode", 0o755))
