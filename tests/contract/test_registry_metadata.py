"""What every MetaStore of the registry promises, run against every implementation that is registered here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from registry_server.metadata import InUse, Missing, StoredBlob, StoredManifest
from registry_server.metadata.sqlite import SqliteMetadata
from tests.contract.test_registry_blobs import Replicas

GRACE = 3600.0
IMPLEMENTATIONS: dict[str, Callable[[Path, Callable[[], float]], Any]] = {
    "sqlite": lambda folder, clock: SqliteMetadata(folder / "db", clock=clock),
    "sqlite, two processes": lambda folder, clock: Replicas(
        SqliteMetadata(folder / "db", clock=clock), SqliteMetadata(folder / "db", clock=clock)
    ),
}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=IMPLEMENTATIONS)
def meta(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Any:
    return IMPLEMENTATIONS[request.param](tmp_path, clock)


def blob(name: str, locator: str = "") -> StoredBlob:
    data = name.encode()
    return StoredBlob(Digest.of(data), len(data), locator or f"at-{name}")


def described(name: str, kind: str = mediatype.OCI_LAYER) -> Descriptor:
    return Descriptor.of(name.encode(), kind)


def manifest(name: str, **fields: Any) -> StoredManifest:
    return StoredManifest(Digest.of(name.encode()), mediatype.OCI_MANIFEST, name.encode(), **fields)


# -- blobs -----------------------------------------------------------------------------------------


def test_a_blob_belongs_to_its_repository(meta: Any) -> None:
    assert meta.add_blob("a", blob("x")) == "at-x"
    assert meta.blob("a", blob("x").digest) == blob("x")
    assert meta.claim("a", blob("x").digest) == blob("x")
    assert meta.blob("b", blob("x").digest) is None
    assert meta.blob("a", blob("y").digest) is None


def test_of_the_same_blob_the_first_locator_is_kept(meta: Any) -> None:
    meta.add_blob("a", blob("x", "first"))
    assert meta.add_blob("a", blob("x", "second")) == "first"
    assert meta.add_blob("b", blob("x", "third")) == "first"
    assert meta.blob("b", blob("x").digest) == blob("x", "first")
    assert meta.knows("first")
    assert not meta.knows("second")


def test_mounting(meta: Any) -> None:
    meta.add_blob("a", blob("x"))
    assert meta.mount("b", blob("x").digest, "a") == blob("x")
    assert meta.blob("b", blob("x").digest) == blob("x")
    assert meta.mount("c", blob("x").digest, "nothing") is None
    assert meta.mount("c", blob("y").digest, None) is None
    assert meta.blob("c", blob("x").digest) is None
    assert meta.mount("c", blob("x").digest, None) == blob("x")


def test_a_removed_blob_stays_in_other_repositories(meta: Any) -> None:
    meta.add_blob("a", blob("x"))
    meta.add_blob("b", blob("x"))
    assert meta.remove_blob("a", blob("x").digest)
    assert not meta.remove_blob("a", blob("x").digest)
    assert meta.blob("a", blob("x").digest) is None
    assert meta.blob("b", blob("x").digest) == blob("x")


# -- manifests and tags ----------------------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was(meta: Any) -> None:
    stored = manifest("m", subject=Digest.of(b"s"), artifact_type="t", annotations='{"a": "b"}')
    meta.put_manifest("a", stored, tags=["v1", "v2"])
    assert meta.manifest("a", stored.digest) == stored
    assert meta.tagged("a", "v1") == meta.tagged("a", "v2") == stored
    assert meta.manifest("b", stored.digest) is None
    assert meta.tagged("b", "v1") is None
    assert meta.tagged("a", "v3") is None


def test_a_manifest_needs_all_its_parts_or_nothing_happens(meta: Any) -> None:
    meta.add_blob("a", blob("x"))
    meta.put_manifest("a", manifest("child"))
    child = described("child", mediatype.OCI_MANIFEST)
    good: dict[str, Any] = {"blobs": [described("x")], "manifests": [child]}
    for bad in (
        {"blobs": [described("x"), described("y")]},
        {"manifests": [child, described("other")]},
        {"manifests": [described("x")]},
        {"blobs": [described("child")]},
        {"blobs": [Descriptor(mediatype.OCI_LAYER, blob("x").digest, 99)]},
    ):
        with pytest.raises(Missing):
            meta.put_manifest("a", manifest("parent"), tags=["v1"], **{**good, **bad})
        assert meta.manifest("a", manifest("parent").digest) is None
        assert meta.tagged("a", "v1") is None
    with pytest.raises(Missing):
        meta.put_manifest("b", manifest("parent"), tags=["v1"], **good)
    assert meta.tags("b", "", 10) in (None, [])
    meta.put_manifest("a", manifest("parent"), tags=["v1"], **good)


def test_missing_says_what_and_how_the_size_differs(meta: Any) -> None:
    meta.add_blob("a", blob("x"))
    wrong = Descriptor(mediatype.OCI_LAYER, blob("x").digest, 99)
    for descriptor, size in ((described("y"), None), (wrong, 1)):
        with pytest.raises(Missing) as missing:
            meta.put_manifest("a", manifest("m"), blobs=[descriptor])
        assert (missing.value.descriptor, missing.value.size) == (descriptor, size)


def test_putting_a_manifest_again_is_no_error_and_keeps_what_refers_to_it(meta: Any) -> None:
    meta.put_manifest("a", manifest("m"), tags=["v1"])
    meta.put_manifest("a", manifest("index"), manifests=[described("m")], tags=["all"])
    meta.put_manifest("a", manifest("m"), tags=["v2"])
    assert meta.tags("a", "", 10) == ["all", "v1", "v2"]
    with pytest.raises(InUse):
        meta.remove_manifest("a", manifest("m").digest)


def test_what_is_referred_to_cannot_be_removed(meta: Any) -> None:
    meta.add_blob("a", blob("x"))
    meta.add_blob("b", blob("x"))
    meta.put_manifest("a", manifest("m"), blobs=[described("x")], tags=["v1"])
    meta.put_manifest("a", manifest("index"), manifests=[described("m")])
    with pytest.raises(InUse) as used:
        meta.remove_blob("a", blob("x").digest)
    assert used.value.user == manifest("m").digest
    assert meta.remove_blob("b", blob("x").digest)
    with pytest.raises(InUse):
        meta.remove_manifest("a", manifest("m").digest)
    assert meta.tagged("a", "v1") is not None
    assert meta.remove_manifest("a", manifest("index").digest)
    assert meta.remove_manifest("a", manifest("m").digest)
    assert not meta.remove_manifest("a", manifest("m").digest)
    assert meta.tagged("a", "v1") is None
    assert meta.remove_blob("a", blob("x").digest)


def test_tags_move_and_go(meta: Any) -> None:
    meta.put_manifest("a", manifest("one"), tags=["v1"])
    meta.put_manifest("a", manifest("two"), tags=["v1"])
    assert meta.tagged("a", "v1") == manifest("two")
    assert meta.remove_tag("a", "v1")
    assert not meta.remove_tag("a", "v1")
    assert meta.manifest("a", manifest("two").digest) == manifest("two")


def test_lists_are_sorted_by_bytes_and_paged(meta: Any) -> None:
    meta.put_manifest("r", manifest("m"), tags=["b", "a", "B", "a-", "a0"])
    assert meta.tags("r", "", 100) == ["B", "a", "a-", "a0", "b"]
    assert meta.tags("r", "a", 2) == ["a-", "a0"]
    assert meta.tags("r", "b", 2) == []
    assert meta.tags("nothing", "", 2) is None
    for name in ("z", "a/b", "a"):
        meta.put_manifest(name, manifest("m"))
    meta.add_blob("blob-only", blob("x"))
    assert meta.repositories("", 100) == ["a", "a/b", "r", "z"]
    assert meta.repositories("a", 1) == ["a/b"]
    meta.remove_manifest("z", manifest("m").digest)
    assert meta.repositories("r", 10) == []
    assert meta.tags("z", "", 2) == []


def test_referrers_by_type_and_page(meta: Any) -> None:
    subject = Digest.of(b"subject")
    stored = [manifest(str(n), subject=subject, artifact_type="even" if n % 2 == 0 else "odd") for n in range(6)]
    for found in stored:
        meta.put_manifest("a", found)
    meta.put_manifest("a", manifest("about another", subject=Digest.of(b"?")))
    in_order = sorted(stored, key=lambda found: str(found.digest))
    assert list(meta.referrers("a", subject, None, "", 10)) == in_order
    assert list(meta.referrers("a", subject, None, str(in_order[1].digest), 2)) == in_order[2:4]
    assert list(meta.referrers("a", subject, "odd", "", 10)) == [m for m in in_order if m.artifact_type == "odd"]
    assert list(meta.referrers("b", subject, None, "", 10)) == []


# -- garbage ---------------------------------------------------------------------------------------


def collect(meta: Any, clock: Clock) -> set[str]:
    meta.condemn(clock.now - GRACE)
    return set(meta.garbage(100))


def test_what_nothing_refers_to_is_garbage_after_the_grace(meta: Any, clock: Clock) -> None:
    meta.add_blob("a", blob("x"))
    clock.now += GRACE - 1
    assert collect(meta, clock) == set()
    assert meta.blob("a", blob("x").digest)
    clock.now += 2
    assert meta.condemn(clock.now - GRACE) == 1
    assert list(meta.garbage(10)) == ["at-x"]
    assert meta.blob("a", blob("x").digest) is None
    assert meta.knows("at-x")
    meta.buried(["at-x"])
    assert list(meta.garbage(10)) == []
    assert not meta.knows("at-x")


def test_what_a_manifest_refers_to_is_never_garbage(meta: Any, clock: Clock) -> None:
    meta.add_blob("a", blob("x"))
    meta.add_blob("b", blob("x"))
    meta.put_manifest("a", manifest("m"), blobs=[described("x")])
    clock.now += 1000 * GRACE
    assert collect(meta, clock) == set()
    assert meta.blob("a", blob("x").digest)
    assert meta.blob("b", blob("x").digest) is None
    meta.remove_manifest("a", manifest("m").digest)
    assert collect(meta, clock) == set()
    clock.now += GRACE + 1
    assert collect(meta, clock) == {"at-x"}


@pytest.mark.parametrize("claim", ["claim", "mount", "add"])
def test_a_client_that_was_told_the_blob_is_here_has_the_grace_to_use_it(meta: Any, clock: Clock, claim: str) -> None:
    meta.add_blob("a", blob("x"))
    clock.now += 2 * GRACE
    if claim == "claim":
        assert meta.claim("a", blob("x").digest)
    elif claim == "mount":
        assert meta.mount("a", blob("x").digest, "a")
    else:
        assert meta.add_blob("a", blob("x", "another")) == "at-x"
    clock.now += GRACE - 1000
    assert collect(meta, clock) == set()
    meta.put_manifest("a", manifest("m"), blobs=[described("x")])


def test_a_blob_uploaded_again_after_it_was_condemned_is_another(meta: Any, clock: Clock) -> None:
    meta.add_blob("a", blob("x", "old"))
    clock.now += 2 * GRACE
    meta.condemn(clock.now - GRACE)
    assert meta.add_blob("a", blob("x", "new")) == "new"
    assert list(meta.garbage(10)) == ["old"]
    meta.put_manifest("a", manifest("m"), blobs=[described("x")])
    assert meta.blob("a", blob("x").digest) == blob("x", "new")


def test_a_manifest_and_a_collector_at_the_same_time_never_lose_a_blob(meta: Any, clock: Clock) -> None:
    """Of every manifest that was acknowledged all blobs are here; of the others, none is half here."""
    acknowledged: list[str] = []
    done = threading.Event()

    def push() -> None:
        for number in range(60):
            name = f"blob {number}"
            meta.add_blob("a", blob(name))
            try:
                meta.put_manifest("a", manifest(f"manifest {number}"), blobs=[described(name)])
            except Missing:
                continue
            acknowledged.append(name)
        done.set()

    pusher = threading.Thread(target=push)
    pusher.start()
    dropped: set[str] = set()
    while not done.wait(0.0005):  # lets the other have its turn: nothing would be acknowledged if it never had two
        clock.now += 1
        meta.condemn(clock.now)  # no grace at all
        dropped |= set(meta.garbage(1000))
    pusher.join()
    assert acknowledged
    for name in acknowledged:
        assert meta.blob("a", blob(name).digest)
        assert f"at-{name}" not in dropped
