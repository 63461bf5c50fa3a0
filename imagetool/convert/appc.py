"""OCI image configs and ACI manifests into each other.

An OCI config travels inside the ACI as an annotation. On the way back every field of which the
ACI still says what that config says comes from there, exactly; of the others the ACI's word counts.

Source: appc spec v0.8.11 aci.md; image-spec v1.1 config.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from imagetool.appc.app import is_variable_name
from imagetool.appc.manifest import ImageManifest
from imagetool.appc.names import numbered, sanitised
from imagetool.errors import Unsupported, VerificationError
from imagetool.oci import document
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform
from imagetool.values import dataclass, replace

CARRIER: Final = "io.appc.oci/config"
_CARRIER_BYTES: Final = 1 << 20  # a larger config would bring the manifest near what readers take
_ARCH: Final = {
    ("linux", "amd64", ""): "amd64",
    ("linux", "386", ""): "i386",
    ("linux", "arm64", ""): "aarch64",
    ("linux", "arm", "v6"): "armv6l",
    ("linux", "arm", "v7"): "armv7l",
    ("linux", "ppc64", ""): "ppc64",
    ("linux", "ppc64le", ""): "ppc64le",
    ("linux", "s390x", ""): "s390x",
    ("freebsd", "amd64", ""): "amd64",
    ("freebsd", "386", ""): "i386",
    ("freebsd", "arm", "v7"): "arm",
    ("darwin", "amd64", ""): "x86_64",
    ("darwin", "386", ""): "i386",
}
_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([A-Za-z0-9]{1,16}))?\Z")
_PORTS: Final = 1024  # entries that one range of ports may become
_PROTOCOLS: Final = ("tcp", "udp", "sctp")


def to_aci(config: ImageConfig, *, name: str, version: str) -> tuple[ImageManifest, list[str]]:
    """Return the ACI manifest for an image, and a line for everything appc cannot say.

    Raises Unsupported for a platform that appc has no name for.
    """
    run = config.run
    lost = [
        f"{field} is not part of appc; it travels as an annotation only"
        for field, value in (
            ("StopSignal", run.stop_signal),
            ("Healthcheck", run.healthcheck),
            ("OnBuild", run.on_build),
            ("Shell", run.shell),
            ("ArgsEscaped", run.args_escaped),
            *((field, True) for field in run.extra),
        )
        if value
    ]
    labels = {"version": version, **_labels(config.platform, lost)}
    app = _app(run, lost)
    annotations = {"created": _timestamp(config.created)} if config.created else {}
    if config.author:
        annotations["authors"] = config.author
    if len(config.raw) <= _CARRIER_BYTES:
        annotations[CARRIER] = config.raw.decode("utf-8")
    else:
        lost.append(
            f"the config has {len(config.raw)} bytes and does not travel as an annotation: only appc's part does"
        )
    manifest = ImageManifest.make(
        name=sanitised(name, identifier=True), labels=labels, app=app, annotations=annotations
    )
    return manifest, lost


def _labels(platform: Platform, lost: list[str]) -> dict[str, str]:
    platform = platform.normal()
    arch = _ARCH.get((platform.os, platform.architecture, platform.variant))
    if arch is None and platform.architecture in ("amd64", "arm64"):  # a later version of what appc knows
        arch = _ARCH.get((platform.os, platform.architecture, ""))
        lost.append(f"variant {platform.variant} is not part of appc; it travels as an annotation only")
    if arch is None:
        raise Unsupported(f"appc has no name for platform {platform}; such an image cannot become a valid ACI")
    return {"os": platform.os, "arch": arch}


def _timestamp(text: str) -> str:
    """Write an RFC 3339 time as appc takes it: capitals, and no leap second."""
    text = text.upper()
    return f"{text[:17]}59{text[19:]}" if text[17:19] == "60" else text


def _app(run: RunConfig, lost: list[str]) -> dict[str, Any]:
    user, _, group = run.user.partition(":")
    app: dict[str, Any] = {
        "exec": [*(run.entrypoint or ()), *(run.cmd or ())],
        "user": user or "0",
        "group": group or ("0" if not user or (user.isascii() and user.isdigit()) else user),
    }
    if run.working_dir:
        app["workingDirectory"] = _absolute(run.working_dir)
    environment = [{"name": name, "value": value} for name, value in _environment(run, lost)]
    if environment:
        app["environment"] = environment
    if "" in run.volumes:
        lost.append("Volumes '' is not a path; it travels as an annotation only")
    taken: set[str] = set()
    mounts = [
        {"name": numbered(sanitised(f"volume{path}", identifier=False), taken), "path": path, "readOnly": False}
        for path in sorted({_absolute(path) for path in run.volumes if path})
    ]
    if mounts:
        app["mountPoints"] = mounts
    ports = list(_ports(run, lost))
    if ports:
        app["ports"] = ports
    if run.labels:
        app["userLabels"] = dict(run.labels)
    return app


def _absolute(path: str) -> str:
    """Return a path that starts at the root, as a relative one does for runtimes."""
    return path if path.startswith("/") else f"/{path}"


def _environment(run: RunConfig, lost: list[str]) -> Iterator[tuple[str, str]]:
    for entry in run.env:
        if "=" not in entry:
            lost.append(f"Env {entry[:40]!r} has no value; it travels as an annotation only")
    for name, value in run.environment.items():
        if is_variable_name(name):
            yield name, value
        else:
            lost.append(f"Env {name[:40]!r} is not a name in appc; it travels as an annotation only")


def _ports(run: RunConfig, lost: list[str]) -> Iterator[dict[str, Any]]:
    """Yield each port or range once, in order of the text."""
    seen: set[str] = set()
    for text in sorted(run.exposed_ports):
        match = _PORT.match(text)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 1 <= first <= last <= 65535:
            lost.append(f"ExposedPorts {text[:40]!r} is not a port; it travels as an annotation only")
            continue
        protocol = (match[3] or "tcp").lower()
        name = f"{first}-{protocol}" if first == last else f"{first}-{last}-{protocol}"
        if name not in seen:
            seen.add(name)
            count = last - first + 1
            yield {"name": name, "protocol": protocol, "port": first, "count": count, "socketActivated": False}


Owners = Mapping[str, tuple[int, int]]


def from_aci(
    manifest: ImageManifest, *, diff_id: Digest, created: str, owners: Owners = MappingProxyType({})
) -> tuple[ImageConfig, list[str]]:
    """Return the OCI config for an ACI whose root filesystem is one layer, and a line for everything lost.

    Args:
        created: the time of an ACI that does not say its own.
        owners: UID and GID of files of the root filesystem, as far as `owning_paths` asks for them.

    Raises Unsupported for a platform that OCI has no name for.
    """
    lost: list[str] = []
    platform = _platform(manifest.labels, lost)
    author, when = manifest.annotations.get("authors", ""), manifest.annotations.get("created", created)
    extra: Mapping[str, Any] = {}
    carried = _carried(manifest, lost)
    if carried is None or manifest.app is None:  # without an app nothing is to be run
        run = _run(manifest.app or {}, owners, lost)
    else:
        run = _merged(manifest.app, carried, owners, lost)
    if carried is not None:
        same = carried.labels == {key: manifest.labels.get(key) for key in ("os", "arch")}
        platform = carried.config.platform if same else platform
        if "created" in manifest.annotations and when == _timestamp(carried.config.created):
            when = carried.config.created
        extra = carried.extra
    lost += _not_carried(manifest)
    history = [History(when, f"imagetool convert aci:{manifest.name}")]
    config = ImageConfig.make(
        platform=platform, run=run, diff_ids=[diff_id], history=history, created=when, author=author, extra=extra
    )
    return config, lost


@dataclass(frozen=True, slots=True)
class _Carried:
    """The config an OCI-born ACI brings, and what it would be as an app and as labels."""

    config: ImageConfig
    app: Mapping[str, Any]
    labels: Mapping[str, str]

    @property
    def extra(self) -> dict[str, Any]:
        """The fields of the config that we know nothing of."""
        return {
            key: value for key, value in document.decode(self.config.raw, what=CARRIER).items() if key not in _KNOWN
        }


_KNOWN: Final = (
    "created", "author", "os", "architecture", "variant", "os.version", "os.features", "config", "rootfs", "history",
)  # fmt: skip


def _carried(manifest: ImageManifest, lost: list[str]) -> _Carried | None:
    """Return what an OCI-born ACI brings; one that cannot be read is reported, and as good as none."""
    text = manifest.annotations.get(CARRIER)
    if text is None:
        return None
    try:
        config = ImageConfig.parse(text.encode("utf-8"), what=f"annotation {CARRIER}")
        return _Carried(config, _app(config.run, []), _labels(config.platform, []))
    except (VerificationError, Unsupported) as error:
        lost.append(f"annotation {CARRIER} is not used: {str(error)[:200]}")
        return None


#: Fields of a RunConfig, and the keys of an app that say the same.
_SAME: Final = (
    (("user",), ("user", "group")),
    (("entrypoint", "cmd"), ("exec",)),
    (("env",), ("environment",)),
    (("working_dir",), ("workingDirectory",)),
    (("volumes",), ("mountPoints",)),
    (("exposed_ports",), ("ports",)),
    (("labels",), ("userLabels",)),
)


def _merged(app: Mapping[str, Any], carried: _Carried, owners: Owners, lost: list[str]) -> RunConfig:
    """Take from the config what the app agrees with, and what an app cannot say; the rest from the app."""
    agreed = [
        (fields, keys)
        for fields, keys in _SAME
        if all((app.get(key) or None) == (carried.app.get(key) or None) for key in keys)
    ]
    settled = {key for _, keys in agreed for key in keys}
    kept = {field for fields, _ in agreed for field in fields}
    run = _run({key: value for key, value in app.items() if key not in settled}, owners, lost)
    changed = {field: getattr(run, field) for fields, _ in _SAME for field in fields if field not in kept}
    return replace(carried.config.run, **changed)


def _not_carried(manifest: ImageManifest) -> list[str]:
    """Return a line for each thing an ACI says that an OCI config has no place for."""
    app = manifest.app or {}
    nowhere = [
        ("app.isolators", app.get("isolators")),
        ("app.eventHandlers", app.get("eventHandlers")),
        ("app.supplementaryGIDs", app.get("supplementaryGIDs")),
        ("app.userAnnotations", app.get("userAnnotations")),
        *((f"mount point {each['name']}'s readOnly", each.get("readOnly")) for each in app.get("mountPoints") or ()),
        *((f"port {each['name']}'s socketActivated", each.get("socketActivated")) for each in app.get("ports") or ()),
        *((f"label {name}", True) for name in manifest.labels if name not in ("version", "os", "arch")),
        *((f"annotation {name}", True) for name in manifest.annotations if name not in ("created", "authors", CARRIER)),
    ]
    lost = [f"{field} has no place in an OCI config" for field, value in nowhere if value]
    if manifest.tree.get("dependencies"):
        names = ", ".join(str(each["imageName"]) for each in manifest.tree["dependencies"])[:200]
        lost.append(f"dependencies are not fetched, their files are not in the image: {names}")
    if manifest.tree.get("pathWhitelist"):
        lost.append("pathWhitelist is not applied: the image has all files of the ACI")
    return lost


def _run(app: Mapping[str, Any], owners: Owners, lost: list[str]) -> RunConfig:
    user = _user(app, owners, lost) if "user" in app else ""
    return RunConfig(
        user="" if user == "0:0" else user,
        env=tuple(f"{entry['name']}={entry.get('value') or ''}" for entry in app.get("environment") or ()),
        entrypoint=tuple(app.get("exec") or ()) or None,
        working_dir=app.get("workingDirectory") or "",
        volumes=tuple(mount["path"] for mount in app.get("mountPoints") or ()),
        exposed_ports=tuple(text for port in app.get("ports") or () for text in _exposed(port, lost)),
        labels=app.get("userLabels") or {},
    )


def owning_paths(manifest: ImageManifest) -> set[str]:
    """Return the paths whose owner the app runs as: appc may say a file where others say a user."""
    app = manifest.app or {}
    return {app[key] for key in ("user", "group") if app and app[key].startswith("/")}


def _user(app: Mapping[str, Any], owners: Owners, lost: list[str]) -> str:
    names = []
    for number, key in enumerate(("user", "group")):
        text = app[key]
        if text.startswith("/"):
            if text not in owners:
                lost.append(f"app.{key} is the owner of {text[:80]}, which is not in the image")
                return ""
            text = str(owners[text][number])
        names.append(text)
    return ":".join(names)


def _exposed(port: Mapping[str, Any], lost: list[str]) -> Iterator[str]:
    if port["protocol"] not in _PROTOCOLS:
        lost.append(f"port {port['name']} is of protocol {port['protocol'][:20]!r}, which an OCI config cannot say")
        return
    count = port.get("count") or 1
    if count > _PORTS:
        lost.append(f"port {port['name']}: of {count} ports only the first {_PORTS} are exposed")
    for number in range(port["port"], port["port"] + min(count, _PORTS)):
        yield f"{number}/{port['protocol']}"


def _platform(labels: Mapping[str, str], lost: list[str]) -> Platform:
    system, arch = labels.get("os", "linux"), labels.get("arch", "amd64")
    for key in ("os", "arch"):
        if key not in labels:
            lost.append(f"the ACI does not say its {key}; it is taken for {system}/{arch}")
    for (name, architecture, variant), known in _ARCH.items():
        if (name, known) == (system, arch):
            return Platform(name, architecture, variant)
    raise Unsupported(f"there is no OCI platform for appc os {system!r} and arch {arch!r}")
