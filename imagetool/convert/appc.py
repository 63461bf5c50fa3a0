"""OCI image configs and ACI manifests into each other.

An OCI config travels inside the ACI as an annotation, so that the way back restores it exactly.

Source: appc spec v0.8.11 aci.md; image-spec v1.1 config.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from imagetool.appc.manifest import ImageManifest
from imagetool.appc.names import numbered, sanitised
from imagetool.errors import Unsupported, VerificationError
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform

CARRIER: Final = "io.appc.oci/config"
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


def to_aci(config: ImageConfig, *, name: str, version: str) -> tuple[ImageManifest, list[str]]:
    """Return the ACI manifest for an image, and a line for everything appc cannot say.

    Raises Unsupported for a platform that appc has no name for.
    """
    platform = config.platform.normal()
    arch = _ARCH.get((platform.os, platform.architecture, platform.variant))
    if arch is None:
        raise Unsupported(f"appc has no name for platform {platform}; such an image cannot become a valid ACI")
    run = config.run
    lost = [
        f"{field} is not part of appc; it travels as an annotation only"
        for field, value in (
            ("StopSignal", run.stop_signal),
            ("Healthcheck", run.healthcheck),
            ("OnBuild", run.on_build),
            ("Shell", run.shell),
        )
        if value
    ]
    annotations = {"created": config.created} if config.created else {}
    if config.author:
        annotations["authors"] = config.author
    annotations[CARRIER] = config.raw.decode("utf-8")
    labels = {"version": version, "os": platform.os, "arch": arch}
    manifest = ImageManifest.make(
        name=sanitised(name, identifier=True), labels=labels, app=_app(run), annotations=annotations
    )
    return manifest, lost


def _app(run: RunConfig) -> dict[str, Any]:
    user, _, group = run.user.partition(":")
    app: dict[str, Any] = {
        "exec": [*(run.entrypoint or ()), *(run.cmd or ())],
        "user": user or "0",
        "group": group or ("0" if not user or user.isdigit() else user),
    }
    if run.working_dir:
        app["workingDirectory"] = run.working_dir
    if run.env:
        app["environment"] = [{"name": name, "value": value} for name, value in run.environment.items()]
    taken: set[str] = set()
    mounts = [
        {"name": numbered(sanitised(f"volume{path}", identifier=False), taken), "path": path, "readOnly": False}
        for path in sorted(run.volumes)
    ]
    if mounts:
        app["mountPoints"] = mounts
    ports = [_port(text) for text in sorted(run.exposed_ports)]
    if ports:
        app["ports"] = ports
    if run.labels:
        app["userLabels"] = dict(run.labels)
    return app


def _port(text: str) -> dict[str, Any]:
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    return {
        "name": f"{number}-{protocol}",
        "protocol": protocol,
        "port": int(number),
        "count": 1,
        "socketActivated": False,
    }


def from_aci(manifest: ImageManifest, *, diff_id: Digest, created: str) -> tuple[ImageConfig, list[str]]:
    """Return the OCI config for an ACI whose root filesystem is one layer, and a line for everything lost."""
    lost = [
        f"{field} has no place in an OCI config"
        for field, value in (
            ("dependencies", manifest.tree.get("dependencies")),
            ("app.isolators", (manifest.app or {}).get("isolators")),
            ("app.eventHandlers", (manifest.app or {}).get("eventHandlers")),
            ("app.supplementaryGIDs", (manifest.app or {}).get("supplementaryGIDs")),
        )
        if value
    ]
    carried = _carried(manifest)
    if carried is not None and to_aci(carried, name=manifest.name, version="")[0].app == manifest.app:
        run, platform, author = carried.run, carried.platform, carried.author
        when = carried.created or created
    else:
        run, platform = _run(manifest.app or {}), _platform(manifest.labels)
        author, when = manifest.annotations.get("authors", ""), manifest.annotations.get("created", created)
    history = [History(when, f"imagetool convert aci:{manifest.name}")]
    config = ImageConfig.make(
        platform=platform, run=run, diff_ids=[diff_id], history=history, created=when, author=author
    )
    return config, lost


def _carried(manifest: ImageManifest) -> ImageConfig | None:
    """Return the config an OCI-born ACI carries; one that cannot be read is as good as none."""
    text = manifest.annotations.get(CARRIER)
    try:
        return ImageConfig.parse(text.encode("utf-8"), what=f"annotation {CARRIER}") if text else None
    except VerificationError:
        return None


def _run(app: Mapping[str, Any]) -> RunConfig:
    user = f"{app['user']}:{app['group']}" if app else ""
    run = RunConfig(
        user="" if user == "0:0" else user,
        env=tuple(f"{entry['name']}={entry.get('value', '')}" for entry in app.get("environment") or ()),
        entrypoint=tuple(app.get("exec") or ()) or None,
        working_dir=app.get("workingDirectory") or "",
        volumes=tuple(mount["path"] for mount in app.get("mountPoints") or ()),
        exposed_ports=tuple(
            f"{number}/{port['protocol']}"
            for port in app.get("ports") or ()
            for number in range(port["port"], port["port"] + min(port.get("count") or 1, 1024))
        ),
    )
    labels = app.get("userLabels")
    return replace(run, labels={str(k): str(v) for k, v in labels.items()}) if isinstance(labels, dict) else run


def _platform(labels: Mapping[str, str]) -> Platform:
    system, arch = labels.get("os", "linux"), labels.get("arch", "amd64")
    for (name, architecture, variant), known in _ARCH.items():
        if (name, known) == (system, arch):
            return Platform(name, architecture, variant)
    raise Unsupported(f"there is no OCI platform for appc os {system!r} and arch {arch!r}")
