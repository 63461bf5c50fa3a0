"""distribution-spec v1.1, "Pushing blobs" (end-4 to end-6, end-11, end-13, end-14)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetool.oci.digest import Digest
from registry_server.message import Disconnected
from tests.support.registry import Client, Reply

BLOB = b"0123456789" * 10
DIGEST = Digest.of(BLOB)


def begin(client: Client, repository: str = "app") -> str:
    reply = client("POST", f"/v2/{repository}/blobs/uploads/")
    assert reply.status == 202
    return reply.headers["location"]


def stored(client: Client, digest: Digest = DIGEST, repository: str = "app") -> bytes | None:
    reply = client("GET", f"/v2/{repository}/blobs/{digest}")
    return reply.body if reply.status == 200 else None


def uploads(client: Client, tmp_path: Path) -> list[Path]:
    return list((tmp_path / "registry/uploads").iterdir())


# -- "POST then PUT" (end-4a, end-6) --------------------------------------------------------------


def test_post_opens_a_session_and_put_closes_it(client: Client, tmp_path: Path) -> None:
    started = client("POST", "/v2/app/blobs/uploads/")
    assert started.status == 202
    assert started.headers["range"] == "0-0"
    assert started.headers["content-length"] == "0"
    done = client("PUT", f"{started.headers['location']}?digest={DIGEST}", BLOB)
    assert done.status == 201
    assert done.headers["location"] == f"/v2/app/blobs/{DIGEST}"
    assert done.headers["docker-content-digest"] == str(DIGEST)
    assert stored(client) == BLOB
    assert not uploads(client, tmp_path)


@pytest.mark.parametrize("path", ["/v2/app/blobs/uploads/", "/v2/app/blobs/uploads"])
def test_a_session_is_opened_with_and_without_the_last_slash(client: Client, path: str) -> None:
    assert client("POST", path).status == 202


def test_an_empty_blob_can_be_pushed(client: Client) -> None:
    empty = Digest.of(b"")
    assert client("PUT", f"{begin(client)}?digest={empty}").status == 201
    assert stored(client, empty) == b""


def test_a_put_without_digest_is_refused_and_the_session_stays(client: Client) -> None:
    place = begin(client)
    refused = client("PUT", place, BLOB)
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert client("PUT", f"{place}?digest={DIGEST}", BLOB).status == 201


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_another_content_than_the_digest_says_is_refused_and_leaves_nothing(
    client: Client, tmp_path: Path, algorithm: str
) -> None:
    digest = Digest.of(BLOB, algorithm)
    refused = client("PUT", f"{begin(client)}?digest={digest}", BLOB + b"!")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert stored(client, digest) is None
    assert not uploads(client, tmp_path)


@pytest.mark.parametrize("text", ["sha256:abc", "md5:00", f"sha256:{'A' * 64}", "../../x", "", "sha256:" + "0" * 65])
def test_a_malformed_digest_is_refused(client: Client, text: str) -> None:
    for reply in (
        client("PUT", f"{begin(client)}?digest={text}", BLOB),
        client("POST", f"/v2/app/blobs/uploads/?digest={text}", BLOB),
        client("GET", f"/v2/app/referrers/{text.replace('/', '') or 'x'}"),
    ):
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")


# -- "Single POST" (end-4b) -----------------------------------------------------------------------


def test_a_blob_in_one_post(client: Client, tmp_path: Path) -> None:
    done = client("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", BLOB)
    assert done.status == 201
    assert done.headers["location"] == f"/v2/app/blobs/{DIGEST}"
    assert stored(client) == BLOB
    refused = client("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}", b"other")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert not uploads(client, tmp_path)


def test_sha512_blobs_are_kept_under_their_own_digest(client: Client) -> None:
    digest = client.blob(BLOB, algorithm="sha512")
    assert stored(client, digest) == BLOB
    assert stored(client, DIGEST) is None


# -- "Pushing a blob in chunks" (end-5, end-6, end-13) ---------------------------------------------


def test_chunks_in_order(client: Client) -> None:
    place = begin(client)
    for first in range(0, 90, 30):
        reply = client("PATCH", place, BLOB[first : first + 30], content_range=f"{first}-{first + 29}")
        assert reply.status == 202
        assert reply.headers["range"] == f"0-{first + 29}"
        assert reply.headers["content-length"] == "0"
        place = reply.headers["location"]
    assert client("PUT", f"{place}?digest={DIGEST}", BLOB[90:], content_range="90-99").status == 201
    assert stored(client) == BLOB


def test_chunks_without_content_range_are_taken_as_they_come(client: Client) -> None:
    place = begin(client)
    for first in range(0, 100, 50):
        assert client("PATCH", place, BLOB[first : first + 50]).status == 202
    assert client("PUT", f"{place}?digest={DIGEST}").status == 201
    assert stored(client) == BLOB


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("stated", ["0-29", "31-60", "60-89", "bytes", "-5", "30-", "30-20", "a-b", "", "30-59, 60-89"])
def test_a_chunk_that_is_not_the_next_is_416_with_where_to_go_on(client: Client, method: str, stated: str) -> None:
    place = begin(client)
    client("PATCH", place, BLOB[:30], content_range="0-29")
    refused = client(method, f"{place}?digest={DIGEST}", BLOB[30:60], content_range=stated)
    assert (refused.status, refused.code) == (416, "BLOB_UPLOAD_INVALID")
    assert refused.headers["range"] == "0-29"
    assert refused.headers["location"] == place
    assert client("PUT", f"{place}?digest={DIGEST}", BLOB[30:], content_range="30-99").status == 201


def test_a_range_of_another_length_than_the_chunk_is_refused_before_it_is_stored(client: Client) -> None:
    place = begin(client)
    refused = client("PATCH", place, BLOB[:30], content_range="0-39")
    assert (refused.status, refused.code) == (400, "SIZE_INVALID")
    assert client("GET", place).headers["range"] == "0-0"


def test_the_status_of_an_upload(client: Client) -> None:
    place = begin(client)
    client("PATCH", place, BLOB[:42])
    status = client("GET", place)
    assert status.status == 204
    assert status.headers["range"] == "0-41"
    assert status.headers["location"] == place
    assert status.body == b""


def test_what_arrived_before_the_client_left_is_kept_and_can_be_continued(client: Client) -> None:
    def cut() -> Iterator[bytes]:
        yield BLOB[:20]
        yield BLOB[20:35]
        raise Disconnected("gone")

    place = begin(client)
    assert client("PATCH", place, cut(), content_range="0-99").status == 408
    assert client("GET", place).headers["range"] == "0-34"
    assert client("PUT", f"{place}?digest={DIGEST}", BLOB[35:], content_range="35-99").status == 201
    assert stored(client) == BLOB


def test_a_put_that_was_cut_is_not_a_blob(client: Client) -> None:
    def cut() -> Iterator[bytes]:
        yield BLOB
        raise Disconnected("gone")

    assert client("PUT", f"{begin(client)}?digest={DIGEST}", cut()).status == 408
    assert stored(client) is None


def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    place = begin(Client.open(tmp_path / "registry"))
    assert Client.open(tmp_path / "registry")("PATCH", place, BLOB[:50]).status == 202
    again = Client.open(tmp_path / "registry")
    assert again("GET", place).headers["range"] == "0-49"
    assert again("PUT", f"{place}?digest={DIGEST}", BLOB[50:]).status == 201
    assert stored(again) == BLOB


@pytest.mark.parametrize("reopened", [False, True])
def test_the_bytes_are_read_again_only_when_the_running_hash_is_lost(tmp_path: Path, reopened: bool) -> None:
    data = bytes(16 << 20)
    client = Client.open(tmp_path / "registry")
    place = begin(client)
    client("PATCH", place, data)
    client = Client.open(tmp_path / "registry") if reopened else client
    before = bytes_read()
    assert client("PUT", f"{place}?digest={Digest.of(data)}").status == 201
    assert (bytes_read() - before > len(data)) is reopened


def bytes_read() -> int:
    """What this thread has read by system calls."""
    fields = dict(line.split(": ") for line in Path("/proc/thread-self/io").read_text().splitlines())
    return int(fields["rchar"])


# -- "Cancel a blob upload" (end-14) ----------------------------------------------------------------


def test_a_cancelled_upload_is_gone(client: Client, tmp_path: Path) -> None:
    place = begin(client)
    client("PATCH", place, BLOB)
    assert client("DELETE", place).status == 204
    assert not uploads(client, tmp_path)
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        reply = client(method, f"{place}?digest={DIGEST}", BLOB if method in ("PATCH", "PUT") else b"")
        assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_finished_upload_is_gone(client: Client) -> None:
    place = begin(client)
    client("PUT", f"{place}?digest={DIGEST}", BLOB)
    assert client("GET", place).status == 404


def test_an_upload_of_one_repository_is_none_of_another(client: Client) -> None:
    upload = begin(client, "mine").rpartition("/")[2]
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert client(method, f"/v2/other/blobs/uploads/{upload}?digest={DIGEST}").code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize(
    "upload", ["x", "..", "%2e%2e", "0" * 32, "0" * 32 + "-" + "0" * 16, "a" * 5000, "%00", "-", "é"]
)
def test_an_upload_id_that_was_never_given_out_is_unknown(client: Client, upload: str) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert client(method, f"/v2/app/blobs/uploads/{upload}?digest={DIGEST}").code == "BLOB_UPLOAD_UNKNOWN"


# -- "Mounting a blob from another repository" (end-11) --------------------------------------------


def mount(client: Client, query: str) -> Reply:
    return client("POST", f"/v2/target/blobs/uploads/?{query}")


def test_a_blob_of_another_repository_is_mounted(client: Client, tmp_path: Path) -> None:
    client.blob(BLOB, "team/source")
    reply = mount(client, f"mount={DIGEST}&from=team%2Fsource")
    assert reply.status == 201
    assert reply.headers["location"] == f"/v2/target/blobs/{DIGEST}"
    assert reply.headers["docker-content-digest"] == str(DIGEST)
    assert stored(client, repository="target") == BLOB
    assert not uploads(client, tmp_path)


def test_without_from_the_registry_finds_the_blob_itself(client: Client) -> None:
    client.blob(BLOB, "somewhere")
    assert mount(client, f"mount={DIGEST}").status == 201
    assert stored(client, repository="target") == BLOB


@pytest.mark.parametrize(
    "query",
    [f"mount={DIGEST}&from=elsewhere", f"mount={Digest.of(b'?')}&from=source", f"mount={Digest.of(b'?')}",
     f"mount={DIGEST}&from=../x", f"mount={DIGEST}&from=", "mount=nonsense&from=source", "mount="],
)  # fmt: skip
def test_what_cannot_be_mounted_gets_an_upload_session(client: Client, query: str) -> None:
    client.blob(BLOB, "source")
    reply = mount(client, query)
    assert reply.status == 202
    assert client("PUT", f"{reply.headers['location']}?digest={DIGEST}", BLOB).status == 201
    assert stored(client, repository="target") == BLOB


def test_a_blob_that_left_its_repository_cannot_be_mounted_from_it(client: Client) -> None:
    client.blob(BLOB, "source")
    client("DELETE", f"/v2/source/blobs/{DIGEST}")
    assert mount(client, f"mount={DIGEST}&from=source").status == 202


# -- once only -------------------------------------------------------------------------------------


def test_the_same_blob_twice_takes_its_room_once(client: Client, tmp_path: Path) -> None:
    client.blob(BLOB, "one")
    client.blob(BLOB, "two")
    client.blob(BLOB, "one")
    assert len([path for path in (tmp_path / "registry/blobs").rglob("*") if path.is_file()]) == 1
    assert stored(client, repository="two") == BLOB
