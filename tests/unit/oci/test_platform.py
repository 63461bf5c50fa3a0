"""Platforms: how they are written, and which image runs where."""

from __future__ import annotations

import pytest

from imagetool.errors import InvalidReference
from imagetool.oci.platform import Platform


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("LINUX/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("freebsd/amd64", "freebsd/amd64"),
        ("linux/i686", "linux/386"),
    ],
)
def test_reading_and_writing(text: str, shown: str) -> None:
    assert str(Platform.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/amd64/v1/x", "linux amd64", "linux/am\nd64", "a" * 65])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidReference, match="not a platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("host", "image", "expected"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/amd64/v3", "linux/amd64", True),
        ("linux/amd64", "linux/amd64/v3", False),
    ],
)
def test_which_image_runs_where(host: str, image: str, expected: bool) -> None:
    assert Platform.parse(host).runs(Platform.parse(image)) is expected


def test_versions_of_systems_count_when_both_say_one() -> None:
    old, new = Platform("windows", "amd64", os_version="10.0.1"), Platform("windows", "amd64", os_version="10.0.2")
    assert not old.runs(new)
    assert old.runs(Platform("windows", "amd64"))


def test_the_json_form_survives() -> None:
    platform = Platform("windows", "amd64", "", "10.0.1", ("win32k",))
    assert Platform.read(platform.tree(), path="$", what="doc") == platform
    assert Platform("linux", "arm", "v7").tree() == {"architecture": "arm", "os": "linux", "variant": "v7"}
