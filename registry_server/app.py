"""The registry as a function: Request -> Response.

Source: distribution-spec v1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from imagetool.distribution import errorcode
from imagetool.errors import DigestMismatch, InvalidReference, StorageError
from imagetool.oci.reference import check_repository
from registry_server.handlers import blobs, discovery, manifests, uploads
from registry_server.handlers.stores import Stores
from registry_server.message import ApiError, Disconnected, Request, Response
from registry_server.storage import Damaged

T = TypeVar("T")
Handler = Callable[[Stores, Request, str, str], Response]
_VERSION: Final = ("Docker-Distribution-API-Version", "registry/2.0")
#: Path pattern (after /v2/, the repository is greedy) -> method -> handler.
_ROUTES: Final[tuple[tuple[re.Pattern[str], dict[str, Handler]], ...]] = (
    (
        re.compile(r"(.+)/blobs/uploads/?()\Z"),
        {"POST": uploads.begin},
    ),
    (
        re.compile(r"(.+)/blobs/uploads/([^/]+)\Z"),
        {"GET": uploads.status, "PATCH": uploads.append, "PUT": uploads.finish, "DELETE": uploads.cancel},
    ),
    (re.compile(r"(.+)/blobs/([^/]+)\Z"), {"GET": blobs.get, "HEAD": blobs.get, "DELETE": blobs.delete}),
    (
        re.compile(r"(.+)/manifests/([^/]+)\Z"),
        {"GET": manifests.get, "HEAD": manifests.get, "PUT": manifests.put, "DELETE": manifests.delete},
    ),
    (re.compile(r"(.+)/tags/list()\Z"), {"GET": discovery.tags}),
    (re.compile(r"(.+)/referrers/([^/]+)\Z"), {"GET": discovery.referrers}),
)


class App:
    """Routes requests to handlers and turns every error into the answer the spec gives it."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def __call__(self, request: Request) -> Response:
        """Answer a request; never raises for what a client sent."""
        try:
            response = self._dispatch(request)
        except ApiError as error:
            response = _failure(error.code, str(error), error.status, error.headers)
        except DigestMismatch as error:
            response = _failure("DIGEST_INVALID", str(error))
        except InvalidReference as error:
            response = _failure("NAME_INVALID", str(error))
        except Disconnected as error:
            response = _failure("SIZE_INVALID", str(error), 408)
        except StorageError as error:
            response = _failure("UNKNOWN", f"the registry cannot store: {error}", 507)
        except Damaged as error:
            response = _failure("UNKNOWN", str(error), 500)
        return Response(response.status, (_VERSION, *response.headers), response.body)

    def _dispatch(self, request: Request) -> Response:
        if request.path in ("/v2", "/v2/"):
            _choose({"GET": None, "HEAD": None}, request)
            return Response(200, (("Content-Type", "application/json"), ("Content-Length", "2")), b"{}")
        if request.path == "/v2/_catalog":
            _choose({"GET": None}, request)
            return discovery.catalog(self._stores, request)
        rest = request.path.removeprefix("/v2/")
        if rest == request.path:
            raise ApiError("UNSUPPORTED", f"no such path: {request.path[:100]}", status=404)
        for pattern, methods in _ROUTES:
            match = pattern.match(rest)
            if match:
                handler = _choose(methods, request)
                return handler(self._stores, request, check_repository(match[1]), match[2])
        raise ApiError("UNSUPPORTED", f"no such path: {request.path[:100]}", status=404)


def _choose(methods: Mapping[str, T], request: Request) -> T:
    """Return what answers the request's method; raises ApiError 405 that says which there are."""
    if request.method not in methods:
        allowed = (("Allow", ", ".join(methods)),)
        raise ApiError("UNSUPPORTED", f"{request.method[:20]} is not supported here", headers=allowed)
    return methods[request.method]


def unexpected() -> Response:
    """Return the answer to a request that met a bug of ours."""
    return _failure("UNKNOWN", "internal error; the server's log has the details")


def _failure(code: str, message: str, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    body = errorcode.render(code, message)
    length = ("Content-Length", str(len(body)))
    return Response(status or errorcode.STATUS[code], (("Content-Type", "application/json"), length, *headers), body)
