"""Lists: the tags of a repository, the repositories, the referrers of a manifest. All come in pages.

Source: distribution-spec v1.1, "Listing Tags", "Listing Referrers".
"""

from __future__ import annotations

import json
from typing import Any, Final

from imagetool import limits
from imagetool.oci import mediatype
from registry_server.handlers.stores import PAGE, Stores, next_page, page_size, read_digest
from registry_server.message import ApiError, Request, Response
from registry_server.metadata import StoredManifest

_JSON: Final = ("Content-Type", "application/json")


def tags(stores: Stores, request: Request, repository: str, _: str) -> Response:
    """Answer the list of tags, in byte order."""
    count = page_size(request)
    names = stores.metadata.tags(repository, request.parameter("last") or "", count + 1)
    if names is None:
        raise ApiError("NAME_UNKNOWN", f"there is no repository {repository}")
    return _page({"name": repository}, "tags", names, count, f"/v2/{repository}/tags/list")


def catalog(stores: Stores, request: Request) -> Response:
    """Answer the list of repositories that hold a manifest, in byte order."""
    count = page_size(request)
    names = stores.metadata.repositories(request.parameter("last") or "", count + 1)
    return _page({}, "repositories", names, count, "/v2/_catalog")


def _page(body: dict[str, Any], key: str, names: list[str], count: int, path: str) -> Response:
    """Return `count` names of one more; n=0 asks for none, and then there is no next page."""
    more = next_page(path, n=count, last=names[count - 1]) if 0 < count < len(names) else ()
    return Response(200, (_JSON, *more), json.dumps({**body, key: names[:count]}).encode())


def referrers(stores: Stores, request: Request, repository: str, name: str) -> Response:
    """Answer an index of the manifests whose subject is `name`; it is empty for one that is not here."""
    subject = read_digest(name)
    wanted = request.parameter("artifactType")
    last = request.parameter("last") or ""
    found = stores.metadata.referrers(repository, subject, wanted, last, PAGE + 1)
    entries: list[dict[str, Any]] = []
    held = 0
    for manifest in found[:PAGE]:
        entry = _entry(manifest)
        held += len(json.dumps(entry))
        if entries and held > limits.DOCUMENT_BYTES // 2:  # an index is a document, with the limit of one
            break
        entries.append(entry)
    body = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries}
    headers = [("Content-Type", mediatype.OCI_INDEX)]
    if wanted is not None:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    if len(entries) < len(found):
        parameters = {"artifactType": wanted} if wanted is not None else {}
        place = f"/v2/{repository}/referrers/{subject}"
        headers += next_page(place, **parameters, last=entries[-1]["digest"])
    return Response(200, tuple(headers), json.dumps(body).encode())


def _entry(manifest: StoredManifest) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "digest": str(manifest.digest),
        "size": len(manifest.body),
    }
    if manifest.artifact_type:
        entry["artifactType"] = manifest.artifact_type
    annotations = json.loads(manifest.annotations)
    if annotations:
        entry["annotations"] = annotations
    return entry
