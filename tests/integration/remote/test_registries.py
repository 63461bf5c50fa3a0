"""Push, pull and copy against whole registry servers: Debian's docker-registry and our own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.content.store import fetch_bytes
from imagetool.distribution.auth import Credentials
from imagetool.errors import AuthError, DigestMismatch, NetworkError, NotFound, SizeMismatch
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Manifest
from imagetool.oci.platform import Platform
from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from imagetool.transfer import FolderOrigins, copy
from tests.support.command import registry as our_server
from tests.support.images import add_image, add_index
from tests.support.peers import docker_registry

BLOB = b"some bytes" * 300000
LAYER = Descriptor.of(BLOB, mediatype.OCI_LAYER)


def our_registry(folder: Path) -> AbstractContextManager[str]:
    return our_server(folder / "data")


SERVERS = {"docker-registry": docker_registry, "ours": our_registry}
needs_peer = pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is not installed")


@pytest.fixture(
    scope="module", params=[pytest.param("docker-registry", marks=[pytest.mark.peer, needs_peer]), pytest.param("ours")]
)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SERVERS[request.param](tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def repository(host: str, request: pytest.FixtureRequest) -> Iterator[Repository]:
    """A repository of the test's own."""
    name = "it/" + request.node.name.partition("[")[0].replace("_", "-")[:60].strip("-")
    with Registry(host) as registry:
        yield Repository(registry, name)


@pytest.mark.parametrize("data", [b"", b"x", BLOB], ids=len)
def test_blobs_come_back(repository: Repository, data: bytes) -> None:
    descriptor = Descriptor.of(data, mediatype.OCI_LAYER)
    repository.push(descriptor, [data[:7], data[7:]] if data else [])
    assert repository.exists(descriptor)
    assert fetch_bytes(repository, descriptor) == data


def test_absent_blobs_and_tags_are_not_found(repository: Repository) -> None:
    absent = Descriptor.of(b"never pushed", mediatype.OCI_LAYER)
    assert not repository.exists(absent)
    with pytest.raises(NotFound, match=str(absent.digest)), repository.fetch(absent):
        pytest.fail("entered")
    with pytest.raises(NotFound):
        repository.resolve("v1")
    with pytest.raises(NotFound):
        list(repository.tags())


@pytest.mark.parametrize("data", [BLOB[:-1] + b"!", BLOB[:-1], BLOB + b"!"], ids=["other", "short", "long"])
def test_wrong_bytes_do_not_stay(repository: Repository, data: bytes) -> None:
    with pytest.raises((DigestMismatch, SizeMismatch)):
        repository.push(LAYER, [data])
    assert not repository.exists(LAYER)


def test_a_blob_goes_in_chunks_too(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    from imagetool.remote import upload

    monkeypatch.setattr(upload, "_CHUNK", 1 << 20)
    body = upload.Body(LAYER, [BLOB], where="test")
    target = upload.Upload(repository.registry, repository.name, LAYER)
    answer = upload._send_chunks(target, upload._start(target), body)
    assert answer.status == 201
    answer.close()
    assert fetch_bytes(repository, LAYER) == BLOB


def test_an_image_goes_there_and_back(repository: Repository, tmp_path: Path) -> None:
    source = MemoryStore()
    root = add_image(source, layers=4, size=2 << 20)
    report = copy(source, repository, root, tags=["v1", "v2"])
    assert report.moved > 8 << 20
    assert repository.resolve("v2") == root
    assert list(repository.tags()) == ["v1", "v2"]
    layout = LayoutStore.create(tmp_path / "layout")
    copy(repository, layout, repository.fetch_root("v1"), tags=["app"])
    assert all(layout.path(digest).read_bytes() == data for digest, data in source.blobs.items())
    again = copy(source, repository, root, tags=["v1", "v2"])
    assert again.moved == 0
    assert not again.tags


def test_an_index_goes_there_and_one_image_of_it_back(repository: Repository) -> None:
    source = MemoryStore()
    root = add_index(source, ["linux/amd64", "linux/arm64"])
    copy(source, repository, root, tags=["multi"])
    pulled = MemoryStore()
    copy(repository, pulled, repository.fetch_root("multi"), tags=["app"])
    assert pulled.blobs == source.blobs
    one = MemoryStore()
    report = copy(repository, one, root, platform=Platform.parse("linux/arm64"))
    assert isinstance(Manifest.parse(one.blobs[report.root.digest]), Manifest)
    assert len(one.blobs) == 5


def test_blobs_are_mounted_from_a_sibling(repository: Repository, tmp_path: Path) -> None:
    source = MemoryStore()
    root = add_image(source, seed=77)
    sibling = Repository(repository.registry, f"{repository.name}-base")
    report = copy(source, sibling, root, tags=["v1"])
    origins = FolderOrigins(tmp_path)
    for blob in report.blobs:
        origins.record(*sibling.place, blob.descriptor.digest)
    report = copy(source, repository, root, tags=["v1"], origins=origins)
    mounted = [blob.outcome for blob in report.blobs]
    assert mounted.count("mounted") == 3 or set(mounted) <= {"mounted", "exists"}
    assert fetch_bytes(repository, report.blobs[1].descriptor)


def test_an_image_goes_from_one_repository_to_another(repository: Repository) -> None:
    source = MemoryStore()
    root = add_image(source, seed=5, size=3 << 20)
    copy(source, repository, root, tags=["v1"])
    other = Repository(repository.registry, f"{repository.name}-copy")
    copy(repository, other, repository.fetch_root("v1"), tags=["v1"])
    assert other.resolve("v1") == root


def test_a_manifest_can_be_deleted(repository: Repository) -> None:
    source = MemoryStore()
    root = add_image(source, seed=9)
    copy(source, repository, root, tags=["v1"])
    repository.delete(root.digest)
    with pytest.raises(NotFound):
        repository.resolve("v1")


def test_a_manifest_without_its_blobs_is_refused_by_the_registry(repository: Repository) -> None:
    source = MemoryStore()
    root = add_image(source, seed=11)
    with pytest.raises((NetworkError, NotFound), match="PUT manifest"):
        repository.push(root, [source.blobs[root.digest]])


@pytest.mark.peer
@needs_peer
def test_basic_authentication_of_docker_registry(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(
        "me:$2b$04$p2Hcq915RRxFvaA3jGqW4ugVKAPiCZi.pwElvZnpDTubj7xj1H8sS\n"
    )  # bcrypt of s3cret
    auth = f"auth: {{htpasswd: {{realm: test, path: {tmp_path / 'htpasswd'}}}}}\n"
    source = MemoryStore()
    root = add_image(source)
    with docker_registry(tmp_path, auth=auth) as host:
        with Registry(host, credentials=lambda *_: Credentials("me", "s3cret")) as registry:
            registry.login()
            copy(source, Repository(registry, "a/b"), root, tags=["v1"])
            assert Repository(registry, "a/b").resolve("v1") == root
        for wrong in (Credentials("me", "guess"), None):
            with Registry(host, credentials=lambda *_, found=wrong: found) as registry, pytest.raises(AuthError):
                registry.login()


@pytest.mark.peer
@needs_peer
def test_sha512_is_more_than_docker_registry_keeps_and_that_is_noticed(tmp_path: Path) -> None:
    descriptor = Descriptor(mediatype.OCI_LAYER, Digest.of(BLOB, "sha512"), len(BLOB))
    with docker_registry(tmp_path) as host, Registry(host) as registry:
        repository = Repository(registry, "a/b")
        repository.push(descriptor, [BLOB])
        try:
            assert fetch_bytes(repository, descriptor) == BLOB
        except NotFound:
            assert not repository.exists(descriptor)


def test_ctrl_c_ends_a_pull_at_once(tmp_path: Path, host: str) -> None:
    source = MemoryStore()
    root = add_image(source, seed=13, layers=2, size=16 << 20)
    with Registry(host) as registry:
        copy(source, Repository(registry, "it/interrupt"), root, tags=["v1"])
    script = tmp_path / "pull.py"
    script.write_text(
        f"""
import time
from pathlib import Path
from imagetool.content.layout import LayoutStore
from imagetool.remote.registry import Registry
from imagetool.remote.repository import Repository
from imagetool.transfer import copy
def slow(event):
    print("moving", flush=True)
    while not Path({str(tmp_path / "interrupted")!r}).exists():
        time.sleep(0.01)
    time.sleep(0.5)
with Registry({host!r}) as registry:
    repository = Repository(registry, "it/interrupt")
    layout = LayoutStore.create(Path({str(tmp_path / "layout")!r}))
    copy(repository, layout, repository.fetch_root("v1"), tags=["app"], observer=slow)
"""
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=os.getcwd()
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    (tmp_path / "interrupted").touch()
    told = process.stdout.read().count(b"moving\n")
    assert process.wait(10) != 0
    assert told <= 8, "each of four threads was telling something, and may have told one thing more; all are over 30"
    assert not LayoutStore.open(tmp_path / "layout").names()
    assert not list((tmp_path / "layout/.staging").glob("*"))
