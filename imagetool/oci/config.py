"""The image config: what to run, on which platform, over which layers, and how it came to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagetool.errors import InvalidDocument
from imagetool.oci import document, mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.document import get, get_list, get_string_map, get_strings
from imagetool.oci.platform import Platform
from imagetool.values import dataclass, field


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The execution parameters of an image; None for entrypoint and cmd means "not set".

    `env` holds KEY=VALUE strings in order. `healthcheck`, `on_build`, `shell` and
    `args_escaped` are Docker's extensions, kept in OCI images as BuildKit does.

    Source: image-spec v1.1 config.md, "Properties"; Docker image spec v1.2 for the extensions.
    """

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    healthcheck: Mapping[str, Any] | None = None
    args_escaped: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment as a mapping; an entry without "=" is dropped, never filled from the host."""
        return dict(entry.split("=", 1) for entry in self.env if "=" in entry)

    def with_env(self, name: str, value: str) -> tuple[str, ...]:
        """Return `env` with one variable set, in its old place when it was there."""
        entries = {entry.partition("=")[0]: entry for entry in self.env}
        entries[name] = f"{name}={value}"
        return tuple(entries.values())

    @classmethod
    def read(cls, tree: Mapping[str, Any], *, what: str) -> RunConfig:
        """Read the `config` object of an image config."""
        at = "$.config"
        healthcheck = get(tree, "Healthcheck", dict, {}, path=at, what=what) or None
        return cls(
            user=get(tree, "User", str, "", path=at, what=what),
            env=get_strings(tree, "Env", path=at, what=what),
            entrypoint=_optional(tree, "Entrypoint", at, what),
            cmd=_optional(tree, "Cmd", at, what),
            working_dir=get(tree, "WorkingDir", str, "", path=at, what=what),
            exposed_ports=tuple(get(tree, "ExposedPorts", dict, {}, path=at, what=what)),
            volumes=tuple(get(tree, "Volumes", dict, {}, path=at, what=what)),
            labels=get_string_map(tree, "Labels", path=at, what=what),
            stop_signal=get(tree, "StopSignal", str, "", path=at, what=what),
            shell=_optional(tree, "Shell", at, what),
            on_build=get_strings(tree, "OnBuild", path=at, what=what),
            healthcheck=healthcheck,
            args_escaped=get(tree, "ArgsEscaped", bool, False, path=at, what=what),
            extra={key: value for key, value in tree.items() if key not in _RUN_FIELDS},
        )

    def tree(self) -> dict[str, Any]:
        """Return the JSON form: known fields in Docker's order, unset ones left out, unknown fields last."""
        known: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in sorted(self.exposed_ports)},
            "Env": list(self.env),
            "Entrypoint": self.entrypoint,
            "Cmd": self.cmd,
            "Healthcheck": self.healthcheck,
            "ArgsEscaped": self.args_escaped,
            "Volumes": {path: {} for path in sorted(self.volumes)},
            "WorkingDir": self.working_dir,
            "OnBuild": list(self.on_build),
            "Labels": dict(sorted(self.labels.items())),
            "StopSignal": self.stop_signal,
            "Shell": self.shell,
        }
        return {key: value for key, value in known.items() if value or value == ()} | dict(self.extra)


_RUN_FIELDS = frozenset(
    [
        "User",
        "Env",
        "Entrypoint",
        "Cmd",
        "WorkingDir",
        "ExposedPorts",
        "Volumes",
        "Labels",
        "StopSignal",
        "Shell",
        "OnBuild",
        "Healthcheck",
        "ArgsEscaped",
    ]
)


def _optional(tree: Mapping[str, Any], key: str, at: str, what: str) -> tuple[str, ...] | None:
    return None if tree.get(key) is None else get_strings(tree, key, path=at, what=what)


@dataclass(frozen=True, slots=True)
class History:
    """How one step of the image came to be; `empty_layer` says that it made no layer."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    @classmethod
    def read(cls, value: object, *, path: str, what: str) -> History:
        """Read one element of `history`."""
        tree: dict[str, Any] = document.expect(value, dict, path, what)
        return cls(
            created=get(tree, "created", str, "", path=path, what=what),
            created_by=get(tree, "created_by", str, "", path=path, what=what),
            author=get(tree, "author", str, "", path=path, what=what),
            comment=get(tree, "comment", str, "", path=path, what=what),
            empty_layer=get(tree, "empty_layer", bool, False, path=path, what=what),
        )

    def tree(self) -> dict[str, Any]:
        """Return the JSON form, unset fields left out."""
        known: dict[str, Any] = {
            "created": self.created,
            "created_by": self.created_by,
            "author": self.author,
            "comment": self.comment,
            "empty_layer": self.empty_layer,
        }
        return {key: value for key, value in known.items() if value}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image config over its raw bytes; `diff_ids` are the uncompressed layer digests, base first.

    Source: image-spec v1.1 config.md.
    """

    raw: bytes
    media_type: str
    platform: Platform
    created: str
    author: str
    run: RunConfig
    diff_ids: tuple[Digest, ...]
    history: tuple[History, ...]

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of these very bytes; its digest is Docker's image ID."""
        return Descriptor.of(self.raw, self.media_type)

    @classmethod
    def parse(cls, raw: bytes, *, media_type: str = mediatype.OCI_CONFIG, what: str = "config") -> ImageConfig:
        """Read a config. Raises InvalidDocument, also when non-empty history and layers do not match in number."""
        tree = document.decode(raw, what=what)
        rootfs: dict[str, Any] = get(tree, "rootfs", dict, None, path="$", what=what)
        kind = get(rootfs, "type", str, "layers", path="$.rootfs", what=what)
        if kind != "layers":
            raise InvalidDocument(f"{what}: $.rootfs.type is {kind[:40]!r}, expected 'layers'")
        diff_ids = get_list(
            rootfs,
            "diff_ids",
            lambda value, at: Digest.parse(document.expect(value, str, at, what)),
            path="$.rootfs",
            what=what,
        )
        history = get_list(tree, "history", lambda v, at: History.read(v, path=at, what=what), path="$", what=what)
        filled = sum(not entry.empty_layer for entry in history)
        if history and filled != len(diff_ids):
            raise InvalidDocument(
                f"{what}: $.history tells of {filled} layers but $.rootfs.diff_ids has {len(diff_ids)}"
            )
        created = get(tree, "created", str, "", path="$", what=what)
        return cls(
            raw=raw,
            media_type=media_type,
            platform=Platform.read(tree, path="$", what=what),
            created=document.check_timestamp(created, path="$.created", what=what) if created else "",
            author=get(tree, "author", str, "", path="$", what=what),
            run=RunConfig.read(get(tree, "config", dict, {}, path="$", what=what), what=what),
            diff_ids=diff_ids,
            history=history,
        )

    @classmethod
    def make(
        cls,
        *,
        platform: Platform,
        run: RunConfig,
        diff_ids: Sequence[Digest],
        history: Sequence[History],
        created: str,
        author: str = "",
        extra: Mapping[str, Any] | None = None,
    ) -> ImageConfig:
        """Make an OCI config of parts; `extra` are top-level fields to carry on unchanged."""
        tree: dict[str, Any] = {"created": created} if created else {}
        if author:
            tree["author"] = author
        tree |= platform.tree()
        tree["config"] = run.tree()
        tree["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}
        if history:
            tree["history"] = [entry.tree() for entry in history]
        for key, value in (extra or {}).items():
            tree.setdefault(key, value)
        return cls.parse(document.encode(tree))
