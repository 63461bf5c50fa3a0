"""What an image says about running it, in the words of the runtime-spec; shared by `run` and the bundles.

Source: image-spec v1.1 conversion.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Final

from imagetool.errors import InvalidDocument, UsageError
from imagetool.oci.config import ImageConfig
from imagetool.runtime.users import User, resolve_user
from imagetool.values import dataclass, field

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PREFIX: Final = "org.opencontainers.image."
#: What annotations begin with that tell crun, runc, Kata, containerd, CRI-O, Podman, ocijail what to do.
_CONTROLLING: Final = (
    "run.oci.",
    "org.systemd.property.",
    "org.criu.",
    "io.katacontainers.",
    "io.containerd.",
    "io.kubernetes.",
    "io.podman.",
    "io.crun.",
    "org.freebsd.",
    "com.github.containers.",
    "com.nvidia.",
    "cdi.k8s.io/",
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller wants otherwise than the image; None and empty mean as the image says.

    args: in place of Cmd. entrypoint: in place of Entrypoint, and then Cmd falls away as well;
    an empty tuple is no entrypoint at all.
    """

    args: Sequence[str] | None = None
    entrypoint: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class ImageProcess:
    """The main process of a container made from an image."""

    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: User


def process_of(
    config: ImageConfig,
    *,
    passwd: bytes,
    group: bytes,
    wishes: Wishes = Wishes(),  # noqa: B008 - a frozen value
) -> ImageProcess:
    """Return the process that a config describes.

    Args:
        passwd, group: the user database of the image's root filesystem; untrusted.

    PATH and HOME are added when nothing sets them; the host's environment is never looked at.
    Raises UsageError when there is no command, BuildError for a user who is not in the image.
    """
    run = config.run
    user, home = resolve_user(run.user if wishes.user is None else wishes.user, passwd, group)
    entrypoint, cmd = run.entrypoint or (), run.cmd or ()
    if wishes.entrypoint is not None:
        entrypoint, cmd = tuple(wishes.entrypoint), ()
    if wishes.args is not None:
        cmd = tuple(wishes.args)
    args = (*entrypoint, *cmd)
    if not args:
        raise UsageError(
            "the image names no command and none was given: say one, to `run` behind the image, to `bundle` by --cmd"
        )
    cwd = wishes.cwd or run.working_dir or "/"
    env = {"PATH": DEFAULT_PATH} | run.environment | dict(wishes.env)
    env.setdefault("HOME", home)
    return ImageProcess(args, env, posixpath.join("/", cwd), user)


def annotations_of(config: ImageConfig) -> dict[str, str]:
    """Return the annotations of the runtime config: those the fields imply, and the labels, which win.

    Labels that a runtime would obey, as `io.katacontainers.config.hypervisor.path`, are left out: an
    image does not say how it is confined.
    """
    platform, run = config.platform, config.run
    implied = {
        "os": platform.os,
        "architecture": platform.architecture,
        "variant": platform.variant,
        "os.version": platform.os_version,
        "os.features": ",".join(platform.os_features),
        "author": config.author,
        "created": config.created,
        "stopSignal": run.stop_signal,
        "exposedPorts": ",".join(sorted(run.exposed_ports)),
    }
    found = {_PREFIX + name: value for name, value in implied.items() if value}
    return found | {
        name: value for name, value in run.labels.items() if name and not name.lower().startswith(_CONTROLLING)
    }


def volumes_of(config: ImageConfig) -> tuple[str, ...]:
    """Return the normal form of the paths that an image wants to be volumes, a parent before what is in it.

    Raises InvalidDocument for the root, "..", or a NUL.
    """
    found = set()
    for path in config.run.volumes:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not parts or ".." in parts or "\0" in path:
            raise InvalidDocument(f"config: $.config.Volumes: {path[:80]!r} cannot be a volume")
        found.add("/" + "/".join(parts))
    return tuple(sorted(found))
