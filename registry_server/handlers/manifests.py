"""Manifests, tags, referrers and the catalog."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

from imagetool import limits
from imagetool.errors import InvalidReference
from imagetool.oci import mediatype
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Index, Manifest, parse
from imagetool.oci.reference import check_tag
from imagetool.streams.verify import read_all
from registry_server.handlers.stores import Stores, read_digest
from registry_server.message import ApiError, Request, Response
from registry_server.metadata import StoredManifest

_PAGE: Final = 1000
_JSON: Final = ("Content-Type", "application/json")


def get(stores: Stores, request: Request, repository: str, reference: str) -> Response:
    """Answer GET and HEAD of a manifest by tag or digest."""
    digest = _resolve(stores, repository, reference)
    manifest = stores.metadata.manifest(repository, digest) if digest else None
    if manifest is None:
        raise ApiError("MANIFEST_UNKNOWN", f"{repository} has no manifest {reference[:160]}")
    headers = (
        ("Content-Type", manifest.media_type),
        ("Docker-Content-Digest", str(manifest.digest)),
        ("ETag", f'"{manifest.digest}"'),
    )
    if request.headers.get("if-none-match") == f'"{manifest.digest}"':
        return Response(304, headers)
    return Response(200, (*headers, ("Content-Length", str(len(manifest.body)))), manifest.body)


def put(stores: Stores, request: Request, repository: str, reference: str) -> Response:
    """Answer PUT: verify, check that all it refers to is here, store and tag in one transaction."""
    tag = None if ":" in reference else _tag(reference)
    raw = read_all(request.body, limits.DOCUMENT_BYTES, where="manifest")
    digest = read_digest(reference) if tag is None else Digest.of(raw)
    if digest != Digest.of(raw, digest.algorithm):
        raise ApiError("DIGEST_INVALID", f"the manifest does not have digest {digest}")
    document = parse(raw, media_type=request.headers.get("content-type", ""), what="manifest")
    for child in document.children:
        known = (
            stores.metadata.manifest(repository, child.digest) is not None
            if isinstance(document, Index)
            else stores.metadata.blob(repository, child.digest) == child.size
        )
        if not known:
            raise ApiError("MANIFEST_BLOB_UNKNOWN", f"{repository} has no {child.media_type} {child.digest}")
    subject = document.subject.digest if document.subject else None
    kind = document.artifact_type or (document.config.media_type if isinstance(document, Manifest) else "")
    stored = StoredManifest(digest, document.media_type, raw, subject, kind, json.dumps(dict(document.annotations)))
    stores.metadata.put_manifest(repository, stored, tag)
    headers = [("Location", f"/v2/{repository}/manifests/{digest}"), ("Docker-Content-Digest", str(digest))]
    if subject:
        headers.append(("OCI-Subject", str(subject)))
    return Response(201, (*headers, ("Content-Length", "0")))


def delete(stores: Stores, request: Request, repository: str, reference: str) -> Response:
    """Answer DELETE: a tag alone, or a manifest with all its tags."""
    if ":" in reference:
        gone = stores.metadata.remove_manifest(repository, read_digest(reference))
    else:
        gone = stores.metadata.remove_tag(repository, _tag(reference))
    if not gone:
        raise ApiError("MANIFEST_UNKNOWN", f"{repository} has no manifest {reference[:160]}")
    return Response(202)


def tags(stores: Stores, request: Request, repository: str, _: str) -> Response:
    """Answer the list of tags, a page at a time."""
    count = _count(request)
    names = stores.metadata.tags(repository, request.query.get("last", ""), count + 1)
    if names is None:
        raise ApiError("NAME_UNKNOWN", f"there is no repository {repository}")
    page = names[:count]
    more = _next(f"/v2/{repository}/tags/list", count, page) if len(names) > count else ()
    return Response(200, (_JSON, *more), json.dumps({"name": repository, "tags": page}).encode())


def catalog(stores: Stores, request: Request) -> Response:
    """Answer the list of repositories, a page at a time."""
    count = _count(request)
    names = stores.metadata.repositories(request.query.get("last", ""), count + 1)
    page = names[:count]
    more = _next("/v2/_catalog", count, page) if len(names) > count else ()
    return Response(200, (_JSON, *more), json.dumps({"repositories": page}).encode())


def referrers(stores: Stores, request: Request, repository: str, name: str) -> Response:
    """Answer an index of the manifests whose subject is `name`."""
    wanted = request.query.get("artifactType")
    entries = []
    for found in stores.metadata.referrers(repository, read_digest(name)):
        if wanted and found.artifact_type != wanted:
            continue
        entry = {"mediaType": found.media_type, "digest": str(found.digest), "size": len(found.body)}
        entry |= {"artifactType": found.artifact_type, "annotations": json.loads(found.annotations)}
        entries.append(entry)
    body = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries}
    filters = (("OCI-Filters-Applied", "artifactType"),) if wanted else ()
    return Response(200, (("Content-Type", mediatype.OCI_INDEX), *filters), json.dumps(body).encode())


def _resolve(stores: Stores, repository: str, reference: str) -> Digest | None:
    return read_digest(reference) if ":" in reference else stores.metadata.tagged(repository, _tag(reference))


def _tag(text: str) -> str:
    try:
        return check_tag(text)
    except InvalidReference as error:
        raise ApiError("MANIFEST_INVALID", str(error)) from None


def _count(request: Request) -> int:
    text = request.query.get("n", str(_PAGE))
    if not text.isdigit() or len(text) > 9:
        raise ApiError("UNSUPPORTED", "n is not a number", status=400)
    return min(int(text), _PAGE)


def _next(path: str, count: int, page: list[str]) -> tuple[tuple[str, str], ...]:
    last = quote(page[-1]) if page else ""
    return (("Link", f'<{path}?n={count}&last={last}>; rel="next"'),)
