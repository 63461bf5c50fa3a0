"""How a place is named: prefixes, tags, ports, digests, and what is none of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.content.memory import MemoryStore
from imagetool.errors import InvalidReference, NotFound, UsageError
from imagetool.transfer import copy
from imagetool.transports import TRANSPORTS, find
from imagetool.transports.base import Surroundings, path_and_name
from imagetool.transports.local import local_name, resolve
from tests.support.images import add_image

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "kind", "rest"),
    [
        ("docker://busybox", "Docker", "busybox"),
        ("docker://127.0.0.1:5000/a/b:1", "Docker", "127.0.0.1:5000/a/b:1"),
        (f"docker://[::1]:5000/a@sha256:{HEX}", "Docker", f"[::1]:5000/a@sha256:{HEX}"),
        ("oci:dir", "Oci", "dir"),
        ("oci:/abs/dir:tag", "Oci", "/abs/dir:tag"),
        ("oci:..:tag", "Oci", "..:tag"),
        ("oci-archive:file.tar:name:tag", "OciArchive", "file.tar:name:tag"),
        ("docker-archive:file.tar", "DockerArchive", "file.tar"),
        ("dir:/a:b", "Dir", "/a:b"),
        ("aci:x.aci", "Aci", "x.aci"),
        ("aci:C:\\images\\x.aci", "Aci", "C:\\images\\x.aci"),
        ("busybox", "Local", "busybox"),
        ("busybox:1.36", "Local", "busybox:1.36"),
        ("localhost:5000/a", "Local", "localhost:5000/a"),
        ("oci", "Local", "oci"),
        ("dir", "Local", "dir"),
        ("oci-x:1", "Local", "oci-x:1"),
        ("docker.io/library/a", "Local", "docker.io/library/a"),
    ],
)
def test_the_prefix_says_the_transport(text: str, kind: str, rest: str) -> None:
    transport, found = find(text)
    assert (type(transport).__name__, found) == (kind, rest)


@pytest.mark.parametrize("prefix", ["docker://", "oci:", "oci-archive:", "docker-archive:", "dir:", "aci:"])
def test_a_prefix_alone_names_nothing(prefix: str) -> None:
    assert prefix in TRANSPORTS
    with pytest.raises(UsageError, match="nothing is named"):
        find(prefix)


@pytest.mark.parametrize(
    "text", ["docker:busybox", "docker-daemon:busybox:1", "containers-storage:x", "http://x/y", "https://x/y:1"]
)
def test_transports_that_are_not_there_are_told_with_those_that_are(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        find(text)
    assert all(prefix in str(refused.value) for prefix in TRANSPORTS)


@pytest.mark.parametrize(
    ("rest", "path", "name"),
    [
        ("dir", "dir", ""),
        ("dir:", "dir", ""),
        ("dir:tag", "dir", "tag"),
        ("dir:host:5000/a:tag", "dir", "host:5000/a:tag"),
        (f"dir:sha256:{HEX}", "dir", f"sha256:{HEX}"),
        ("C:\\dir:tag", "C", "\\dir:tag"),  # a colon ends the path, on every system
        ("/", "/", ""),
    ],
)
def test_the_path_ends_at_the_first_colon(rest: str, path: str, name: str) -> None:
    assert path_and_name(rest) == (Path(path), name)


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
@pytest.mark.parametrize("way", ["source", "destination"])
def test_a_tag_without_a_path_is_refused_and_nothing_made(
    around: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    found, rest = find(f"{transport}::tag")
    with pytest.raises(UsageError, match="no path"), getattr(found, way)(rest, around):
        pass
    assert sorted(tmp_path.iterdir()) == before


@settings(deadline=None, max_examples=200)
@given(
    st.text(alphabet="aA:/@.-_\\ \0é[]0", max_size=20)
    | st.from_regex(r"(docker|oci|dir|aci|http)(-archive)?:/{0,2}.{0,9}")
)
def test_whatever_is_written_is_found_or_refused_as_usage(text: str) -> None:
    try:
        transport, rest = find(text)
    except UsageError:
        return
    if type(transport).__name__ == "Local":
        assert rest == text
    else:
        assert text.endswith(rest)
        assert rest


# -- the local store ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a", "a:latest"),
        ("docker.io/library/a", "a:latest"),
        ("docker.io/b/a:1", "b/a:1"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("quay.io/x/y:2", "quay.io/x/y:2"),
    ],
)
def test_names_are_kept_in_their_familiar_form(text: str, kept: str) -> None:
    assert local_name(text) == kept


@pytest.mark.parametrize("text", ["A", "a b", "a:b:c", "a/", "../a", "a@sha256:1", ""])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        local_name(text)


def test_images_are_found_by_name_and_by_the_beginning_of_their_digest(around: Surroundings) -> None:
    memory = MemoryStore()
    root = add_image(memory)
    copy(memory, around.store, root, tags=["a:latest", "b/c:1"])
    hex_digits = root.digest.hex
    for text in (
        "a",
        "a:latest",
        "docker.io/library/a",
        "b/c:1",
        hex_digits,
        hex_digits[:4],
        f"sha256:{hex_digits[:12]}",
    ):
        assert resolve(around.store, text) == root
    for text in (hex_digits[:3], "b/c", "c", f"{'0' * 64}"):
        with pytest.raises(NotFound, match="it has: a:latest, b/c:1"):
            resolve(around.store, text)


def test_a_store_without_images_says_so(around: Surroundings) -> None:
    with pytest.raises(NotFound, match="it has: none"):
        resolve(around.store, "a")
