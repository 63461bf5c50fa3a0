"""Whiteouts that name what a layer may not take away, and entries that look like whiteouts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagetool.errors import InvalidArchive
from imagetool.layer.merge import flatten
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Whiteouts, unpack
from tests.security.layer.hostile import ROOT, apply, folder, root_only
from tests.support.tars import END, base256, chunks, extended, file, header, opener, record


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("whiteouts", ["apply", pytest.param("overlay", marks=root_only)])
@pytest.mark.parametrize(
    "name",
    [b".wh.", b".wh..", b".wh...", b"d/.wh.", b"d/.wh..", b"d/.wh...", b".wh..wh.", b".wh..wh.x", b"d/.wh..wh..opq2"],
)
def test_a_whiteout_of_nothing_or_of_the_way_up_is_refused(place: Path, name: bytes, whiteouts: Whiteouts) -> None:
    below = folder(b"d") + file(b"d/x", b"kept")
    with pytest.raises(InvalidArchive, match="whiteout"):
        apply(place, below, file(name), whiteouts=whiteouts)
    assert (place / "target/d/x").read_bytes() == b"kept"


@pytest.mark.parametrize("whiteouts", ["apply", pytest.param("overlay", marks=root_only)])
@pytest.mark.parametrize("name", [b".wh.d/x", b".wh..wh..opq/x", b"d/.wh.e/f/g", b".wh.d/.wh.x", b".wh.d/.wh..wh..opq"])
def test_a_whiteout_holds_nothing(place: Path, name: bytes, whiteouts: Whiteouts) -> None:
    with pytest.raises(InvalidArchive, match="a whiteout holds nothing"):
        apply(place, folder(b"d") + file(b"d/x", b"kept"), file(name), whiteouts=whiteouts)
    with pytest.raises(InvalidArchive, match="a whiteout holds nothing"):
        list(flatten([(opener(file(name) + END), "1")]))
    assert sorted(os.listdir(place / "target")) == ["d"]


@pytest.mark.parametrize("minor", [0, b"", b"0000000\0"])
def test_a_whiteout_of_the_kernel_is_nothing_that_a_layer_has(minor: int | bytes) -> None:
    """Squashed, it would be one for whoever takes the image next."""
    with pytest.raises(InvalidArchive, match="0:0, the kernel's own whiteout"):
        list(flatten([(opener(header(b"x", b"3", device=(0, minor)) + END), "1")]))


def test_whiteouts_of_what_is_not_there_make_nothing(place: Path) -> None:
    target = apply(place, file(b"a/b/.wh.c") + file(b"x/.wh..wh..opq") + file(b".wh.y"))
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("marker", [b"l/.wh.x", b"l/.wh..wh..opq"])
def test_a_whiteout_hides_nothing_that_a_symlink_leads_to(place: Path, marker: bytes) -> None:
    """Stacked as an overlay, what is behind the link would not be hidden either."""
    below = folder(b"d") + file(b"d/x", b"kept") + header(b"l", b"2", linkname=b"d")
    target = apply(place, below, file(marker))
    assert (target / "d/x").read_bytes() == b"kept"
    assert [entry.name for entry, _ in flatten([(opener(below + END), "1"), (opener(file(marker) + END), "2")])] == [
        *(b"d", b"d/x", b"l")
    ]


@pytest.mark.skipif(not ROOT, reason="needs root: the kernel's whiteouts")
@pytest.mark.parametrize("marker", [b"l/.wh.x", b"l/.wh..wh..opq"])
def test_a_whiteout_for_an_overlay_marks_nothing_that_a_symlink_leads_to(place: Path, marker: bytes) -> None:
    layer = folder(b"d") + header(b"l", b"2", linkname=b"d") + file(marker)
    target = apply(place, layer, whiteouts="overlay")
    assert os.listdir(target / "d") == []
    assert os.listxattr(target / "d") == []


@pytest.mark.parametrize(
    "device", [(0, 0), (4096, 0), (0, 1 << 20), (base256(-1, 8), 0), (base256(1 << 40, 8), base256(1 << 40, 8))]
)
@pytest.mark.parametrize("flag", [b"3"])
def test_devices_that_cannot_be_or_mean_a_whiteout_are_refused(
    place: Path, device: tuple[int, int], flag: bytes
) -> None:
    with pytest.raises(InvalidArchive, match="device"):
        apply(place, file(b"kept", b"x"), header(b"kept", flag, device=device))
    assert (place / "target/kept").read_bytes() == b"x"


@root_only
def test_attributes_of_an_overlay_or_the_host_are_left_out_with_one_warning(place: Path) -> None:
    attributes = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy", b"user.overlay.opaque", b"security.selinux"]
    records = b"".join(record(b"SCHILY.xattr." + name, b"/etc") for name in [*attributes, b"user.fine"])
    warnings: list[str] = []
    tar = extended(b"x", records) + folder(b"d") + extended(b"x", records) + file(b"f")
    unpack(read(chunks(tar + END), where="l"), place / "target", where="l", whiteouts="overlay", warn=warnings.append)
    for name in ("d", "f"):
        assert os.listxattr(place / "target" / name) == ["user.fine"]
    assert len(warnings) == 1
    assert "overlay" in warnings[0] or "selinux" in warnings[0]
