"""Credentials from the files that docker, podman and skopeo share.

Source: containers-auth.json(5); Docker's config.json.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import pwd
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from imagetool import limits
from imagetool.config import credential_helper
from imagetool.distribution.auth import Credentials
from imagetool.errors import AuthError, StorageError, UsageError
from imagetool.oci import document
from imagetool.oci.reference import DEFAULT_REGISTRY, check_registry
from imagetool.values import dataclass

_HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB_NAMES: Final = frozenset({"index.docker.io", "registry-1.docker.io", DEFAULT_REGISTRY})


@dataclass(frozen=True, slots=True)
class Found:
    """Credentials and where they come from, to explain a login that fails ("FILE: KEY")."""

    credentials: Credentials
    place: str


def find(
    registry: str, repository: str, *, authfile: Path | None = None, environment: Mapping[str, str] = os.environ
) -> Found | None:
    """Search the files in order; in each the longest key that fits, its credential helpers first.

    Raises InvalidDocument or AuthError for a file or helper that is there but of no use.
    """
    for path in _files(authfile, environment):
        tree = _read(path)
        if tree is None:
            continue
        found = _from_helper(tree, path, registry, repository) or _from_file(tree, path, registry, repository)
        if found:
            return found
    return None


def login(
    registry: str,
    credentials: Credentials,
    *,
    authfile: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Keep a user name and password for a registry; return where. The registry is not asked.

    They go to the helper that the file names for the registry, else into the file itself (made
    with mode 0600). Only the first file of the search order is written.
    """
    check_registry(registry)
    if not credentials.username or ":" in credentials.username or not credentials.username.isprintable():
        raise UsageError(f"not a user name: {credentials.username[:60]!r}")
    path = next(_files(authfile, environment))
    with _editing(path) as tree:
        helper = _helper(tree, str(path), registry, "")
        if helper:
            credential_helper.store(helper, _server(registry), credentials)
            return f"docker-credential-{helper}"
        secret = f"{credentials.username}:{credentials.password}".encode()
        auths = _section(tree, "auths", str(path))
        for key in _keys_of(auths, registry):
            del auths[key]
        auths[_key(path, registry)] = {"auth": base64.b64encode(secret).decode()}
        tree["auths"] = auths
    return str(path)


def logout(registry: str, *, authfile: Path | None = None, environment: Mapping[str, str] = os.environ) -> bool:
    """Forget a registry in the file that `login` writes; say whether there was anything to forget."""
    check_registry(registry)
    path = next(_files(authfile, environment))
    if _read(path) is None:
        return False
    with _editing(path) as tree:
        helper = _helper(tree, str(path), registry, "")
        if helper:
            credential_helper.erase(helper, _server(registry))
        auths = _section(tree, "auths", str(path))
        keys = _keys_of(auths, registry)
        for key in keys:
            del auths[key]
        tree["auths"] = auths
    return bool(helper or keys)


def trusted_realms(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Return the hosts of IMAGETOOL_TRUSTED_REALMS: token servers that may see credentials of another site."""
    return frozenset(environment.get("IMAGETOOL_TRUSTED_REALMS", "").replace(",", " ").lower().split())


def _files(authfile: Path | None, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield where credentials may be; one that was named is the only one."""
    named = authfile or (environment.get("REGISTRY_AUTH_FILE") and Path(environment["REGISTRY_AUTH_FILE"]))
    if named:
        yield Path(named)
        return
    home = Path(environment.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir)
    runtime = environment.get("XDG_RUNTIME_DIR")
    yield (Path(runtime) / "containers" if runtime else Path(f"/run/containers/{os.geteuid()}")) / "auth.json"
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers/auth.json"
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    yield home / ".dockercfg"


def _read(path: Path) -> dict[str, Any] | None:
    """Return a file's tree, None for one that is not there or not for us (as another user's home)."""
    try:
        with open(path, "rb") as file:
            raw = file.read(limits.DOCUMENT_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if not raw.strip():
        return {}
    tree = document.decode(raw, what=str(path))
    return {"auths": tree} if path.name == ".dockercfg" else tree


def _section(tree: Mapping[str, Any], name: str, what: str) -> dict[str, Any]:
    return dict(document.get(tree, name, dict, {}, path="$", what=what))


def _names(registry: str, repository: str) -> Iterator[str]:
    """Yield the keys that stand for a repository, the longest first, the registry last."""
    name = f"{registry}/{repository}".rstrip("/")
    while name != registry:
        yield name
        name = name.rpartition("/")[0]
    yield registry


def _host(key: str) -> str:
    """Return the host that a key in Docker's style means: no scheme, no path, one name for Docker Hub."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DEFAULT_REGISTRY if host in _HUB_NAMES else host


def _keys_of(section: Mapping[str, Any], registry: str) -> list[str]:
    """Return the keys that stand for a whole registry: its name, or a URL of it as Docker writes them."""
    return [key for key in section if key == registry or (_host(key) == registry and ("://" in key or "/" not in key))]


def _match(section: Mapping[str, Any], registry: str, repository: str) -> list[str]:
    exact = [name for name in _names(registry, repository) if name in section]
    return exact + [key for key in _keys_of(section, registry) if key not in exact]


def _helper(tree: Mapping[str, Any], what: str, registry: str, repository: str) -> str:
    """Return the helper that keeps the credentials of a repository, "" when it is the file."""
    helpers = document.get_string_map(tree, "credHelpers", path="$", what=what)
    keys = _match(helpers, registry, repository)
    return helpers[keys[0]] if keys else document.get(tree, "credsStore", str, "", path="$", what=what)


def _server(registry: str) -> str:
    """Return the name helpers know a registry by."""
    return _HUB_KEY if registry == DEFAULT_REGISTRY else registry


def _key(path: Path, registry: str) -> str:
    """Return the key to write: Docker itself finds Docker Hub only under its old URL."""
    return _server(registry) if path.name == "config.json" else registry


def _from_helper(tree: Mapping[str, Any], path: Path, registry: str, repository: str) -> Found | None:
    helper = _helper(tree, str(path), registry, repository)
    if not helper:
        return None
    try:
        credentials = credential_helper.get(helper, _server(registry))
    except AuthError as error:
        error.add_note(f"{path} names this helper")
        raise
    return Found(credentials, f"docker-credential-{helper}, named by {path}") if credentials else None


def _from_file(tree: Mapping[str, Any], path: Path, registry: str, repository: str) -> Found | None:
    auths = _section(tree, "auths", str(path))
    for key in _match(auths, registry, repository):
        where = f"{path}: {key}"
        credentials = _credentials(document.expect(auths[key], dict, f"$.auths.{key}", str(path)), where)
        if credentials:
            return Found(credentials, where)
    return None


def _credentials(entry: Mapping[str, Any], where: str) -> Credentials | None:
    """Read one entry; None for an empty one, as Docker leaves it for a helper."""
    text = document.get(entry, "auth", str, "", path="$", what=where)
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().rstrip("\0").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if text and not colon:
        raise AuthError(f"{where}: auth is not base64 of USER:PASSWORD; log in again")
    if not text:
        user = document.get(entry, "username", str, "", path="$", what=where)
        password = document.get(entry, "password", str, "", path="$", what=where)
    identity = document.get(entry, "identitytoken", str, "", path="$", what=where)
    token = document.get(entry, "registrytoken", str, "", path="$", what=where)
    return Credentials(user, password, identity, token) if user or identity or token else None


@contextmanager
def _editing(path: Path) -> Iterator[dict[str, Any]]:
    """Yield a file's tree to change; it is replaced as a whole when it did, one writer at a time."""
    path = Path(os.path.realpath(path))  # a link stays a link
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        tree = _read(path) or {}
        before = json.dumps(tree)
        yield tree
        if json.dumps(tree) != before:
            _replace(path, tree["auths"] if path.name == ".dockercfg" else tree)
    finally:
        os.close(folder)


def _replace(path: Path, tree: Mapping[str, Any]) -> None:
    data = json.dumps(tree, indent=2, ensure_ascii=False).encode() + b"\n"
    try:
        file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False)  # mode 0600
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)
    except OSError as error:
        os.unlink(file.name)
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
