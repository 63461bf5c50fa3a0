"""The grammar of image references."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.errors import ImagetoolError, InvalidReference
from imagetool.oci.digest import Digest
from imagetool.oci.reference import Reference

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("busybox", "docker.io", "library/busybox", "", ""),
        ("busybox:1.36", "docker.io", "library/busybox", "1.36", ""),
        ("library/busybox", "docker.io", "library/busybox", "", ""),
        ("team/app", "docker.io", "team/app", "", ""),
        ("docker.io/busybox", "docker.io", "library/busybox", "", ""),
        ("index.docker.io/team/app:x", "docker.io", "team/app", "x", ""),
        ("localhost/app", "localhost", "app", "", ""),
        ("localhost:5000/app", "localhost:5000", "app", "", ""),
        ("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000", "a/b/c", "v1", ""),
        ("[::1]:5000/app", "[::1]:5000", "app", "", ""),
        ("ghcr.io/a/b", "ghcr.io", "a/b", "", ""),
        ("Registry/app", "Registry", "app", "", ""),
        (f"busybox@{DIGEST}", "docker.io", "library/busybox", "", DIGEST),
        (f"r.io/a:t@{DIGEST}", "r.io", "a", "t", DIGEST),
        ("a__b/c--d.e_f", "docker.io", "a__b/c--d.e_f", "", ""),
        ("app:" + "t" * 128, "docker.io", "library/app", "t" * 128, ""),
    ],
)
def test_reading(text: str, registry: str, repository: str, tag: str, digest: str) -> None:
    found = Reference.parse(text)
    assert (found.registry, found.repository, found.tag) == (registry, repository, tag)
    assert str(found.digest or "") == digest
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "/", "a:", "a@", "a@sha256:b", "a//b", "/a", "a/", "A/b/C", "a/B", "busyBox", "a:-x"),
        *("a:" + "t" * 129, "a b", "a\n", "r.io:99999/a", "r.io:0/a", "r.io:/a", "-r.io/a", "r.io/a..b"),
        *("r.io/a___b", "r.io/_a", "r.io/a_", "r.io/" + "a" * 256, "http://r.io/a", "r.io/a:b:c", "r.io/a?x"),
        *("r.io/../a", "r.io/a%2fb", "user@r.io/a"),
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidReference) as refused:
        Reference.parse(text)
    assert "\n" not in str(refused.value)


def test_upper_case_gets_a_hint() -> None:
    with pytest.raises(InvalidReference, match="lower case"):
        Reference.parse("ghcr.io/Team/app")


def test_forms_for_people_and_for_registries() -> None:
    plain = Reference.parse("busybox").with_default_tag()
    assert (plain.familiar, plain.target, plain.name) == ("busybox:latest", "latest", "docker.io/library/busybox")
    pinned = Reference("docker.io", "team/app", "1", Digest.parse(DIGEST))
    assert (pinned.familiar, pinned.target) == (f"team/app:1@{DIGEST}", DIGEST)
    assert pinned.with_default_tag() == pinned
    assert Reference.parse("localhost:5000/app").familiar == "localhost:5000/app"


@given(st.text("aA0.:/@-_[]", max_size=20) | st.text(max_size=20))
def test_anything_gives_a_reference_that_reads_back_or_our_error(text: str) -> None:
    try:
        found = Reference.parse(text)
    except ImagetoolError:
        return
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar) == found
    assert not set(found.repository) & set("\\%? \n")
    assert ".." not in found.repository.split("/")
