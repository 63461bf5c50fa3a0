"""Manifests by tag or digest.

Source: distribution-spec v1.1, "Pulling manifests", "Pushing Manifests", "Deleting tags", "Deleting Manifests".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from imagetool import limits
from imagetool.distribution.headers import names_entity
from imagetool.errors import InvalidDocument, InvalidReference, LimitExceeded, Unsupported
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.manifest import Document, Index, Manifest, parse
from imagetool.oci.reference import check_tag
from imagetool.streams.verify import read_all
from registry_server.handlers.stores import Stores, read_digest
from registry_server.message import ApiError, Request, Response
from registry_server.metadata import InUse, Missing, StoredManifest

_TAGS: Final = 100  # that one PUT may set


def get(stores: Stores, request: Request, repository: str, reference: str) -> Response:
    """Answer GET and HEAD of a manifest. It is sent as it was pushed, whatever Accept says."""
    manifest = _find(stores, repository, reference)
    if manifest is None:
        raise ApiError("MANIFEST_UNKNOWN", f"{repository} has no manifest {reference[:160]}")
    entity = f'"{manifest.digest}"'
    headers = (
        ("Content-Type", manifest.media_type),
        ("Docker-Content-Digest", str(manifest.digest)),
        ("ETag", entity),
    )
    if names_entity(request.headers.get("if-none-match", ""), entity):
        return Response(304, headers)
    return Response(200, (*headers, ("Content-Length", str(len(manifest.body)))), manifest.body)


def _find(stores: Stores, repository: str, reference: str) -> StoredManifest | None:
    if ":" in reference:
        return stores.metadata.manifest(repository, read_digest(reference))
    try:
        return stores.metadata.tagged(repository, check_tag(reference))
    except InvalidReference:
        return None  # what cannot be a tag is a tag that is not there


def put(stores: Stores, request: Request, repository: str, reference: str) -> Response:
    """Answer PUT: verify, then check that all it refers to is here, store and tag in one transaction."""
    tags = [_tag(text) for text in request.parameters("tag")]
    if len(tags) > _TAGS:
        raise ApiError("UNSUPPORTED", f"more than {_TAGS} tags at once", status=414)
    digest = read_digest(reference) if ":" in reference else None
    if digest is None:
        tags.append(_tag(reference))
    raw = _body(request)
    found = Digest.of(raw, digest.algorithm if digest else _algorithm(request))
    if digest not in (None, found):
        raise ApiError("DIGEST_INVALID", f"the manifest has digest {found}, not {digest}")
    document = _parse(raw, request)
    blobs, manifests = _children(document)
    stored = _stored(found, document)
    try:
        stores.metadata.put_manifest(repository, stored, blobs=blobs, manifests=manifests, tags=tags)
    except Missing as missing:
        raise _refusal(repository, missing) from None
    headers = [("Location", f"/v2/{repository}/manifests/{reference}"), ("Docker-Content-Digest", str(found))]
    if stored.subject:
        headers.append(("OCI-Subject", str(stored.subject)))
    headers += [("OCI-Tag", tag) for tag in request.parameters("tag")]
    return Response(201, (*headers, ("Content-Length", "0")))


def _body(request: Request) -> bytes:
    cap = limits.DOCUMENT_BYTES
    too_large = ApiError("MANIFEST_INVALID", f"a manifest may have {cap} bytes", status=413)
    if (request.length or 0) > cap:
        raise too_large
    try:
        return read_all(request.body, cap, where="manifest")
    except LimitExceeded:
        raise too_large from None


def _algorithm(request: Request) -> str:
    """Return what to name a manifest with that is pushed by tag."""
    algorithm = request.parameter("digest-algorithm") or "sha256"
    if algorithm not in ("sha256", "sha512"):
        raise ApiError("DIGEST_INVALID", f"not a supported algorithm: {algorithm[:40]!r}")
    return algorithm


def _parse(raw: bytes, request: Request) -> Document:
    try:
        return parse(raw, media_type=request.headers.get("content-type", ""), what="manifest")
    except (InvalidDocument, LimitExceeded, Unsupported) as error:
        raise ApiError("MANIFEST_INVALID", str(error)) from None


def _children(document: Document) -> tuple[Sequence[Descriptor], Sequence[Descriptor]]:
    """Return the blobs and the manifests that must be here. Layers that may not be distributed need not."""
    if isinstance(document, Index):
        manifests = [child for child in document.manifests if child.media_type in mediatype.DOCUMENTS]
        return [child for child in document.manifests if child not in manifests], manifests
    foreign = (".nondistributable.", ".foreign.")
    return [child for child in document.children if not any(part in child.media_type for part in foreign)], []


def _stored(digest: Digest, document: Document) -> StoredManifest:
    kind = document.artifact_type or (document.config.media_type if isinstance(document, Manifest) else "")
    return StoredManifest(
        digest,
        document.media_type,
        document.raw,
        document.subject.digest if document.subject else None,
        kind,
        json.dumps(dict(document.annotations)),
    )


def _refusal(repository: str, missing: Missing) -> ApiError:
    child = missing.descriptor
    if missing.size is not None:
        text = f"{child.digest} has {missing.size} bytes, but the manifest says {child.size}"
        return ApiError("MANIFEST_INVALID", text)
    return ApiError("MANIFEST_BLOB_UNKNOWN", f"{repository} has no {child.media_type} {child.digest}")


def delete(stores: Stores, request: Request, repository: str, reference: str) -> Response:
    """Answer DELETE: a tag alone, or a manifest with all its tags; refused while an index refers to it."""
    try:
        if ":" in reference:
            gone = stores.metadata.remove_manifest(repository, read_digest(reference))
        else:
            gone = stores.metadata.remove_tag(repository, reference)
    except InUse as error:
        raise ApiError("UNSUPPORTED", f"index {error.user} refers to {reference}; delete it first") from None
    if not gone:
        raise ApiError("MANIFEST_UNKNOWN", f"{repository} has no manifest {reference[:160]}")
    return Response(202, (("Content-Length", "0"),))


def _tag(text: str) -> str:
    try:
        return check_tag(text)
    except InvalidReference as error:
        raise ApiError("TAG_INVALID", str(error)) from None
