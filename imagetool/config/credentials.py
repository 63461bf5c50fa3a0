"""Credentials from the files that docker, podman and skopeo share.

Source: containers-auth.json(5); Docker's config.json.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imagetool.distribution.auth import Credentials
from imagetool.errors import AuthError
from imagetool.limits import DOCUMENT_BYTES
from imagetool.oci import document


def credentials_for(registry: str, repository: str, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """Return what is stored for a repository, the longest key first; None for nothing."""
    for path in _files(environment):
        try:
            with open(path, "rb") as file:
                raw = file.read(DOCUMENT_BYTES + 1)
        except OSError:  # not there, or not ours to read: the next one
            continue
        auths: dict[str, Any] = document.get(
            document.decode(raw, what=str(path)), "auths", dict, {}, path="$", what=str(path)
        )
        for key in _keys(registry, repository):
            if isinstance(auths.get(key), dict):
                return _read(auths[key], f"{path}: {key}")
    return None


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    if environment.get("REGISTRY_AUTH_FILE"):
        yield Path(environment["REGISTRY_AUTH_FILE"])
        return
    home = Path(environment.get("HOME") or "/root")
    if environment.get("XDG_RUNTIME_DIR"):
        yield Path(environment["XDG_RUNTIME_DIR"]) / "containers/auth.json"
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _keys(registry: str, repository: str) -> Iterator[str]:
    name = f"{registry}/{repository}".rstrip("/")
    while name != registry:
        yield name
        name = name.rpartition("/")[0]
    yield registry
    yield f"https://{registry}"
    if registry == "docker.io":
        yield "https://index.docker.io/v1/"


def _read(entry: Mapping[str, Any], where: str) -> Credentials:
    identity = document.get(entry, "identitytoken", str, "", path="$", what=where)
    text = document.get(entry, "auth", str, "", path="$", what=where)
    try:
        user, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise AuthError(f"{where}: auth is not base64 of user:password") from None
    return Credentials(user, password, identity_token=identity)
