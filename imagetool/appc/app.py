"""The `app` of an image manifest: what is run, as whom, and what it needs.

Source: appc spec v0.8.11, aci.md, "Image Manifest Schema".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from imagetool.appc.isolators import check_isolators
from imagetool.appc.names import check_name
from imagetool.appc.spelling import objects, spelt
from imagetool.errors import InvalidDocument
from imagetool.oci import document

_APP: Final = (
    "exec", "user", "group", "supplementaryGIDs", "eventHandlers", "workingDirectory", "environment",
    "mountPoints", "ports", "isolators", "userAnnotations", "userLabels",
)  # fmt: skip
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_EVENTS: Final = ("pre-start", "post-stop")
_PORTS: Final = 65_535


def is_variable_name(text: str) -> bool:
    """Say whether an environment variable may have this name."""
    return _ENV_NAME.match(text) is not None


def check_app(tree: Mapping[str, Any], *, what: str, strict: bool) -> dict[str, Any]:
    """Return an app with the spec's spelling of all keys it knows. Raises InvalidDocument naming the JSON path.

    Args:
        strict: hold it to the letter of the spec; otherwise names and isolators that actool accepts pass.
    """
    app = spelt(tree, _APP, path="$.app", what=what)
    document.get_strings(app, "exec", path="$.app", what=what)
    for key in ("user", "group"):
        if not document.get(app, key, str, None, path="$.app", what=what):
            raise InvalidDocument(f"{what}: $.app.{key} is empty")
    folder = document.get(app, "workingDirectory", str, "", path="$.app", what=what)
    if folder and not folder.startswith("/"):
        raise InvalidDocument(f"{what}: $.app.workingDirectory is not absolute: {folder[:80]!r}")
    for key in ("userLabels", "userAnnotations"):
        document.get_string_map(app, key, path="$.app", what=what)
    _check_groups(app, what)
    checked = {
        "eventHandlers": _event_handlers(app, what),
        "environment": _environment(app, what, strict),
        "mountPoints": _mount_points(app, what, strict),
        "ports": _ports(app, what, strict),
        "isolators": check_isolators(app, path="$.app", what=what, strict=strict),
    }
    return app | {key: value for key, value in checked.items() if app.get(key) is not None}


def _check_groups(app: Mapping[str, Any], what: str) -> None:
    groups: list[Any] = document.get(app, "supplementaryGIDs", list, [], path="$.app", what=what)
    for number, value in enumerate(groups):
        at = f"$.app.supplementaryGIDs[{number}]"
        if not 0 <= document.expect(value, int, at, what) < 0xFFFFFFFF:
            raise InvalidDocument(f"{what}: {at} is not a group ID: {value}")


def _event_handlers(app: Mapping[str, Any], what: str) -> list[dict[str, Any]]:
    handlers = objects(app, "eventHandlers", ("name", "exec"), path="$.app", what=what)
    seen: set[str] = set()
    for number, handler in enumerate(handlers):
        at = f"$.app.eventHandlers[{number}]"
        name = document.get(handler, "name", str, None, path=at, what=what)
        if name not in _EVENTS or name in seen:
            raise InvalidDocument(f"{what}: {at}.name {name[:80]!r} is not one of {_EVENTS}, or there twice")
        seen.add(name)
        document.get_strings(handler, "exec", path=at, what=what)
    return handlers


def _environment(app: Mapping[str, Any], what: str, strict: bool) -> list[dict[str, Any]]:
    variables = objects(app, "environment", ("name", "value"), path="$.app", what=what)
    seen: set[str] = set()
    for number, variable in enumerate(variables):
        at = f"$.app.environment[{number}]"
        name = document.get(variable, "name", str, None, path=at, what=what)
        document.get(variable, "value", str, None if strict else "", path=at, what=what)
        if not is_variable_name(name) or name in seen:
            raise InvalidDocument(f"{what}: {at}.name {name[:80]!r} is not a name, or there twice")
        seen.add(name)
    return variables


def _mount_points(app: Mapping[str, Any], what: str, strict: bool) -> list[dict[str, Any]]:
    mounts = objects(app, "mountPoints", ("name", "path", "readOnly"), path="$.app", what=what)
    seen: set[str] = set()
    for number, mount in enumerate(mounts):
        at = f"$.app.mountPoints[{number}]"
        _check_unique(mount, seen, at, what, strict)
        document.get(mount, "readOnly", bool, False, path=at, what=what)
        path = document.get(mount, "path", str, None, path=at, what=what)
        if not path.startswith("/"):
            raise InvalidDocument(f"{what}: {at}.path is not absolute: {path[:80]!r}")
    return mounts


def _ports(app: Mapping[str, Any], what: str, strict: bool) -> list[dict[str, Any]]:
    names = ("name", "protocol", "port", "count", "socketActivated")
    ports = objects(app, "ports", names, path="$.app", what=what)
    seen: set[str] = set()
    for number, entry in enumerate(ports):
        at = f"$.app.ports[{number}]"
        _check_unique(entry, seen, at, what, strict)
        port = document.get(entry, "port", int, None, path=at, what=what)
        count = document.get(entry, "count", int, 1, path=at, what=what)
        document.get(entry, "socketActivated", bool, False, path=at, what=what)
        if not document.get(entry, "protocol", str, None, path=at, what=what):
            raise InvalidDocument(f"{what}: {at}.protocol is empty")
        if not (port >= 1 and count >= 1 and port + count - 1 <= _PORTS):
            raise InvalidDocument(f"{what}: {at} has port {port} and count {count}")
    return ports


def _check_unique(entry: Mapping[str, Any], seen: set[str], at: str, what: str, strict: bool) -> None:
    name = document.get(entry, "name", str, None, path=at, what=what)
    check_name(name, path=f"{at}.name", what=what, strict=strict)
    if name in seen:
        raise InvalidDocument(f"{what}: {at}.name {name!r} is there twice")
    seen.add(name)
