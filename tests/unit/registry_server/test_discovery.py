"""distribution-spec v1.1: "Listing Tags" (end-8), "Listing Referrers" (end-12), and the old catalog."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from imagetool.distribution.headers import parse_next_link
from imagetool.oci import mediatype
from imagetool.oci.digest import Digest
from tests.support.registry import Client, descriptor, manifest


def pages(client: Client, url: str, key: str) -> list[list[str]]:
    """Follow the Links, as a client does."""
    found = []
    target: str | None = url
    while target:
        reply = client("GET", target)
        assert reply.status == 200
        found.append(reply.json[key])
        assert len(found) < 50
        target = parse_next_link([reply.headers.get("link", "")])
        assert target is None or urlsplit(target).path == urlsplit(url).path
    return found


@pytest.fixture
def tagged(client: Client) -> Client:
    digest = client.image("v1")
    raw = client("GET", f"/v2/app/manifests/{digest}").body
    for tag in ("v10", "v2", "Latest", "latest"):
        client.manifest(tag, raw)
    return client


TAGS = ["Latest", "latest", "v1", "v10", "v2"]


def test_tags_are_sorted(tagged: Client) -> None:
    reply = tagged("GET", "/v2/app/tags/list")
    assert reply.json == {"name": "app", "tags": TAGS}
    assert reply.headers["content-type"] == "application/json"
    assert "link" not in reply.headers


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6, 10**17])
def test_tags_come_in_pages(tagged: Client, n: int) -> None:
    found = pages(tagged, f"/v2/app/tags/list?n={n}", "tags")
    assert [tag for page in found for tag in page] == TAGS
    assert all(len(page) == n for page in found[:-1])
    assert found[-1]


def test_last_is_where_to_go_on_and_need_not_be_a_tag(tagged: Client) -> None:
    assert tagged("GET", "/v2/app/tags/list?last=v1").json["tags"] == ["v10", "v2"]
    assert tagged("GET", "/v2/app/tags/list?last=m&n=1").json["tags"] == ["v1"]
    assert tagged("GET", "/v2/app/tags/list?last=zzz").json["tags"] == []


def test_no_tags_are_asked_for(tagged: Client) -> None:
    reply = tagged("GET", "/v2/app/tags/list?n=0")
    assert reply.json["tags"] == []
    assert "link" not in reply.headers


@pytest.mark.parametrize("n", ["-1", "x", "", "²", "1.5", "9" * 30, "1e3"])
def test_a_number_that_is_none_is_refused(tagged: Client, n: str) -> None:
    for path in ("/v2/app/tags/list", "/v2/_catalog"):
        reply = tagged("GET", f"{path}?n={n}")
        assert (reply.status, reply.code) == (400, "PAGINATION_NUMBER_INVALID")


def test_the_tags_of_an_unknown_repository_are_404(client: Client) -> None:
    reply = client("GET", "/v2/nothing/tags/list")
    assert (reply.status, reply.code) == (404, "NAME_UNKNOWN")


def test_no_page_is_longer_than_a_thousand(client: Client) -> None:
    raw = manifest(b"{}")
    client.blob(b"{}")
    for start in range(0, 1050, 50):
        tags = "&".join(f"tag=t{number:04}" for number in range(start, start + 50))
        assert client.manifest(f"{Digest.of(raw)}?{tags}", raw).status == 201
    assert [len(page) for page in pages(client, "/v2/app/tags/list?n=1000000", "tags")] == [1000, 50]
    assert [len(page) for page in pages(client, "/v2/app/tags/list", "tags")] == [1000, 50]


def test_the_catalog_has_the_repositories_that_hold_something(client: Client) -> None:
    for name in ("b/x", "a", "c"):
        client.image("v1", name)
    client.blob(b"only a blob", "blob-only")
    client("POST", "/v2/upload-only/blobs/uploads/")
    assert client("GET", "/v2/_catalog").json == {"repositories": ["a", "b/x", "c"]}
    assert pages(client, "/v2/_catalog?n=2", "repositories") == [["a", "b/x"], ["c"]]
    assert client("GET", "/v2/_catalog?last=a&n=1").json["repositories"] == ["b/x"]


# -- referrers -------------------------------------------------------------------------------------

SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.example.signature"


@pytest.fixture
def subject(client: Client) -> Digest:
    return client.image("v1")


def refer(client: Client, subject: Digest, kind: str, number: int = 0) -> Digest:
    raw = client("GET", f"/v2/app/manifests/{subject}").body
    client.blob(b"{}")
    about = manifest(
        b"{}",
        artifactType=kind,
        annotations={"number": str(number)},
        subject=descriptor(raw, mediatype.OCI_MANIFEST),
    )
    reply = client.manifest(str(Digest.of(about)), about)
    assert reply.headers["oci-subject"] == str(subject)
    return Digest.of(about)


def test_referrers_are_an_index_with_types_and_annotations(client: Client, subject: Digest) -> None:
    sbom, signature = refer(client, subject, SBOM, 1), refer(client, subject, SIGNATURE, 2)
    reply = client("GET", f"/v2/app/referrers/{subject}")
    assert reply.status == 200
    assert reply.headers["content-type"] == mediatype.OCI_INDEX
    assert "oci-filters-applied" not in reply.headers
    assert (reply.json["schemaVersion"], reply.json["mediaType"]) == (2, mediatype.OCI_INDEX)
    entries = {entry["digest"]: entry for entry in reply.json["manifests"]}
    assert set(entries) == {str(sbom), str(signature)}
    raw = client("GET", f"/v2/app/manifests/{sbom}").body
    assert entries[str(sbom)] == descriptor(raw, mediatype.OCI_MANIFEST, artifactType=SBOM, annotations={"number": "1"})


def test_referrers_of_one_type(client: Client, subject: Digest) -> None:
    sbom = refer(client, subject, SBOM)
    refer(client, subject, SIGNATURE)
    reply = client("GET", f"/v2/app/referrers/{subject}?artifactType={SBOM.replace('/', '%2F')}")
    assert [entry["digest"] for entry in reply.json["manifests"]] == [str(sbom)]
    assert reply.headers["oci-filters-applied"] == "artifactType"
    none = client("GET", f"/v2/app/referrers/{subject}?artifactType=application/none")
    assert (none.status, none.json["manifests"]) == (200, [])


def test_nothing_refers_is_an_empty_index_and_never_404(client: Client) -> None:
    for repository in ("app", "never/seen"):
        reply = client("GET", f"/v2/{repository}/referrers/{Digest.of(b'?')}")
        assert (reply.status, reply.json["manifests"]) == (200, [])
        assert reply.headers["content-type"] == mediatype.OCI_INDEX


def test_a_referrer_may_come_before_its_subject_and_stay_after_it(client: Client, subject: Digest) -> None:
    sbom = refer(client, subject, SBOM)
    client("DELETE", f"/v2/app/manifests/{subject}")
    assert [e["digest"] for e in client("GET", f"/v2/app/referrers/{subject}").json["manifests"]] == [str(sbom)]


def test_a_deleted_referrer_is_not_listed(client: Client, subject: Digest) -> None:
    sbom = refer(client, subject, SBOM)
    client("DELETE", f"/v2/app/manifests/{sbom}")
    assert client("GET", f"/v2/app/referrers/{subject}").json["manifests"] == []


def test_an_image_without_artifact_type_is_listed_by_its_config(client: Client, subject: Digest) -> None:
    raw = client("GET", f"/v2/app/manifests/{subject}").body
    client.blob(b"{}")
    about = manifest(b"{}", subject=descriptor(raw, mediatype.OCI_MANIFEST))
    client.manifest("about", about)
    (entry,) = client("GET", f"/v2/app/referrers/{subject}").json["manifests"]
    assert entry["artifactType"] == mediatype.OCI_CONFIG
    assert "annotations" not in entry


def test_an_index_refers_too(client: Client, subject: Digest) -> None:
    raw = client("GET", f"/v2/app/manifests/{subject}").body
    fields = {"subject": descriptor(raw, mediatype.OCI_MANIFEST), "manifests": []}
    about = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, **fields}).encode()
    client.manifest("about", about, kind=mediatype.OCI_INDEX)
    (entry,) = client("GET", f"/v2/app/referrers/{subject}").json["manifests"]
    assert entry == descriptor(about, mediatype.OCI_INDEX)


def test_a_flood_of_referrers_comes_in_pages_that_are_documents(client: Client, subject: Digest) -> None:
    raw = client("GET", f"/v2/app/manifests/{subject}").body
    client.blob(b"{}")
    for number in range(6):
        about = manifest(
            b"{}",
            artifactType=SBOM,
            annotations={"text": str(number) * 500_000},
            subject=descriptor(raw, mediatype.OCI_MANIFEST),
        )
        assert client.manifest(str(Digest.of(about)), about).status == 201
    seen: list[str] = []
    target: str | None = f"/v2/app/referrers/{subject}?artifactType={SBOM}"
    while target:
        reply = client("GET", target)
        assert len(reply.body) < 4 << 20
        assert reply.headers["oci-filters-applied"] == "artifactType"
        seen += [entry["digest"] for entry in reply.json["manifests"]]
        target = parse_next_link([reply.headers.get("link", "")])
    assert len(seen) == len(set(seen)) == 6
