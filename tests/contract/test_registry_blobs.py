"""What every BlobStore of the registry promises, run against every implementation that is registered here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagetool.errors import DigestMismatch
from imagetool.oci.digest import Digest
from registry_server.message import File
from registry_server.storage import Conflict, Damaged
from registry_server.storage.filesystem import FilesystemBlobs

BLOB = b"some bytes" * 1000
DIGEST = Digest.of(BLOB)


class Replicas:
    """Two processes over one store: every call goes to the other one than the call before."""

    def __init__(self, one: Any, two: Any) -> None:
        self._stores = [one, two]

    def __getattr__(self, name: str) -> Any:
        self._stores.reverse()
        return getattr(self._stores[0], name)


IMPLEMENTATIONS: dict[str, Callable[[Path], Any]] = {
    "filesystem": FilesystemBlobs,
    "filesystem, two processes": lambda root: Replicas(FilesystemBlobs(root), FilesystemBlobs(root)),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return IMPLEMENTATIONS[request.param](tmp_path / "store")


def upload(blobs: Any, data: bytes = BLOB) -> tuple[str, int]:
    session = blobs.begin()
    blobs.append(session, 0, [data])
    committed: tuple[str, int] = blobs.commit(session, Digest.of(data))
    return committed


def read(blobs: Any, locator: str, start: int = 0, end: int = len(BLOB)) -> bytes:
    part = blobs.part(locator, start, end)
    return part.path.read_bytes()[part.start : part.end] if isinstance(part, File) else bytes(part)


def test_a_blob_in_pieces(blobs: Any) -> None:
    session = blobs.begin()
    assert blobs.size(session) == 0
    assert blobs.append(session, 0, [BLOB[:10], BLOB[10:100]]) == 100
    assert blobs.size(session) == 100
    assert blobs.append(session, 100, [BLOB[100:]]) == len(BLOB)
    locator, size = blobs.commit(session, DIGEST)
    assert size == len(BLOB)
    assert read(blobs, locator) == BLOB
    assert read(blobs, locator, 5, 17) == BLOB[5:17]
    assert blobs.size(session) is None


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("data", [b"", b"x", BLOB], ids=len)
def test_every_algorithm_and_size(blobs: Any, data: bytes, algorithm: str) -> None:
    session = blobs.begin()
    blobs.append(session, 0, [data] if data else [])
    locator, size = blobs.commit(session, Digest.of(data, algorithm))
    assert size == len(data)
    assert read(blobs, locator, 0, size) == data


def test_an_offset_is_taken_once(blobs: Any) -> None:
    session = blobs.begin()
    blobs.append(session, 0, [BLOB[:50]])
    for offset in (0, 49, 51, 100):
        with pytest.raises(Conflict):
            blobs.append(session, offset, [b"!"])
    assert blobs.size(session) == 50
    blobs.append(session, 50, [BLOB[50:]])
    assert read(blobs, blobs.commit(session, DIGEST)[0]) == BLOB


def test_of_two_writers_at_one_offset_one_wins(blobs: Any) -> None:
    session = blobs.begin()
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        yield BLOB[:10]
        inside.set()
        assert go_on.wait(30)
        yield BLOB[10:]

    first = threading.Thread(target=blobs.append, args=(session, 0, slow()))
    first.start()
    assert inside.wait(30)
    with pytest.raises(Conflict):
        blobs.append(session, 0, [b"another"])
    with pytest.raises(Conflict):
        blobs.append(session, 10, [b"another"])
    with pytest.raises(Conflict):
        blobs.commit(session, DIGEST)
    go_on.set()
    first.join()
    assert read(blobs, blobs.commit(session, DIGEST)[0]) == BLOB


def test_what_arrived_before_a_failure_is_kept(blobs: Any) -> None:
    def broken() -> Iterator[bytes]:
        yield BLOB[:30]
        raise ConnectionError("gone")

    session = blobs.begin()
    with pytest.raises(ConnectionError):
        blobs.append(session, 0, broken())
    assert blobs.size(session) == 30
    blobs.append(session, 30, [BLOB[30:]])
    assert read(blobs, blobs.commit(session, DIGEST)[0]) == BLOB


@pytest.mark.parametrize("data", [BLOB[:-1], BLOB + b"!", BLOB[:-1] + b"!"], ids=["short", "long", "other"])
def test_wrong_bytes_get_no_locator(blobs: Any, data: bytes) -> None:
    session = blobs.begin()
    blobs.append(session, 0, [data])
    with pytest.raises(DigestMismatch):
        blobs.commit(session, DIGEST)
    assert not list(blobs.locators())


def test_a_locator_is_never_used_twice(blobs: Any) -> None:
    first, _ = upload(blobs)
    second, _ = upload(blobs)
    assert first != second
    blobs.delete(first)
    assert read(blobs, second) == BLOB
    third, _ = upload(blobs)
    assert len({first, second, third}) == 3
    assert {locator for locator, _ in blobs.locators()} == {second, third}


def test_deleting_twice_is_no_error_and_reading_then_is(blobs: Any) -> None:
    locator, _ = upload(blobs)
    blobs.delete(locator)
    blobs.delete(locator)
    with pytest.raises(Damaged):
        blobs.part(locator, 0, 1)


@pytest.mark.parametrize("session", ["", "..", "../blobs", "x", "0" * 32, "0" * 31 + "\n", "/etc/passwd", "0" * 5000])
def test_a_session_that_was_never_begun(blobs: Any, session: str) -> None:
    assert blobs.size(session) is None
    with pytest.raises(Conflict):
        blobs.append(session, 0, [b"x"])
    with pytest.raises(Conflict):
        blobs.commit(session, DIGEST)
    blobs.cancel(session)


def test_a_cancelled_session_is_gone(blobs: Any) -> None:
    session = blobs.begin()
    blobs.append(session, 0, [BLOB])
    blobs.cancel(session)
    blobs.cancel(session)
    assert blobs.size(session) is None
    with pytest.raises(Conflict):
        blobs.commit(session, DIGEST)


def test_sessions_are_not_to_be_guessed(blobs: Any) -> None:
    sessions = {blobs.begin() for _ in range(50)}
    assert len(sessions) == 50
    assert all(len(session) == 32 and set(session) <= set("0123456789abcdef") for session in sessions)


def test_old_sessions_expire_and_those_in_use_do_not(blobs: Any) -> None:
    import time

    old, busy = blobs.begin(), blobs.begin()

    def expiring() -> Iterable[bytes]:
        yield BLOB[:10]
        assert blobs.expire(time.time() + 10) == 1
        yield BLOB[10:]

    assert blobs.expire(time.time() - 3600) == 0
    blobs.append(busy, 0, expiring())
    assert blobs.size(old) is None
    assert read(blobs, blobs.commit(busy, DIGEST)[0]) == BLOB
