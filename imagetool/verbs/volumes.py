"""What of the host, and of memory, a container of `run` is shown: --volume, --tmpfs and --mount.

Source: docker container run reference, "Mount volume", "Mount tmpfs", "Add bind mounts or volumes using --mount".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from imagetool.errors import UsageError
from imagetool.runtime.spec import Mount
from imagetool.values import dataclass

_OPTIONS: Final = {"ro": "ro", "readonly": "ro", "rw": "rw", "z": "", "Z": "", "rprivate": "", "private": ""}
#: Of a tmpfs: words, and what has a value.
_WORDS: Final = frozenset(("rw", "ro", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "relatime"))
_VALUES: Final = {
    "size": re.compile(r"[0-9]+[kmgKMG%]?"),
    "mode": re.compile(r"[0-7]{3,4}"),
    "uid": re.compile(r"[0-9]+"),
    "gid": re.compile(r"[0-9]+"),
    "nr_inodes": re.compile(r"[0-9]+[kmgKMG]?"),
}
_OPPOSITES: Final = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro"}
_PRIVATE: Final = ("", "private", "rprivate")


@dataclass(frozen=True, slots=True)
class Volume:
    """A file or directory of the host, shown in the container at `target`. Raises UsageError for paths that cannot be.

    source: absolute; followed. mode: ro or rw.
    """

    source: Path
    target: str
    mode: Literal["ro", "rw"] = "rw"

    def __post_init__(self) -> None:
        if not self.source.is_absolute() or not self.target.startswith("/") or not self.target.strip("/"):
            raise UsageError(f"--volume {self.source}:{self.target[:80]}: a volume is HOST:CONTAINER, both absolute")

    @classmethod
    def parse(cls, text: str, *, folder: Path) -> Volume:
        """Read HOST:CONTAINER[:ro|rw]; a HOST that begins with . is relative to `folder`."""
        source, _, rest = text.partition(":")
        target, _, options = rest.partition(":")
        if not rest or not source.startswith(("/", ".", "~")):
            raise UsageError(
                f"--volume {text[:80]!r}: write HOST:CONTAINER[:ro], HOST with / or . at its beginning; "
                "volumes with a name are not kept here"
            )
        mode: Literal["ro", "rw"] = "rw"
        for option in filter(None, options.split(",")):
            if option not in _OPTIONS:
                raise UsageError(f"--volume {text[:80]!r}: there are ro and rw, not {option[:40]!r}")
            mode = "ro" if _OPTIONS[option] == "ro" else mode
        return cls(Path(os.path.abspath(folder / Path(source).expanduser())), target, mode)


def tmpfs_mount(text: str) -> Mount:
    """Read PATH[:OPTIONS] of --tmpfs; without options everybody may write there. Raises UsageError."""
    path, _, given = text.partition(":")
    words, values = {"nosuid", "nodev"}, {"mode": "1777"}
    for option in filter(None, given.split(",")):
        name, equals, value = option.partition("=")
        if equals and name in _VALUES and _VALUES[name].fullmatch(value):
            values[name] = value
        elif option in _WORDS:
            words -= {_OPPOSITES.get(option, ""), *(word for word, other in _OPPOSITES.items() if other == option)}
            words.add(option)
        else:
            known = ", ".join((*sorted(_WORDS), *(f"{name}=" for name in _VALUES)))
            raise UsageError(f"--tmpfs {text[:80]!r}: {option[:40]!r} is none of {known}")
    return Mount(path, "tmpfs", "tmpfs", (*sorted(words), *(f"{name}={value}" for name, value in values.items())))


def volume_or_tmpfs(text: str, *, folder: Path) -> tuple[list[Volume], list[str]]:
    """Read --mount type=bind,… or type=tmpfs,… as a volume or as what --tmpfs says. Raises UsageError."""
    found: dict[str, str] = {}
    for field in text.split(","):
        name, equals, value = field.partition("=")
        name = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}.get(name, name)
        found[name] = value if equals else "true"
    kind, target = found.pop("type", "volume"), found.pop("target", "")
    if kind == "bind":
        source, readonly = found.pop("source", ""), found.pop("readonly", "false")
        private = found.pop("bind-propagation", "") in _PRIVATE
        if not found and private and source and readonly in ("true", "1", "false", "0"):
            place = Path(os.path.abspath(folder / Path(source).expanduser()))
            return [Volume(place, target, "ro" if readonly in ("true", "1") else "rw")], []
    if kind == "tmpfs":
        settings = [f"{name[6:]}={found.pop(name)}" for name in ("tmpfs-size", "tmpfs-mode") if name in found]
        settings += ["ro"] if found.pop("readonly", "false") in ("true", "1") else []
        if not found:
            return [], [":".join([target, *([",".join(settings)] if settings else [])])]
    raise UsageError(
        f"--mount {text[:80]!r}: write type=bind,source=HOST,target=PATH[,readonly] or "
        "type=tmpfs,target=PATH[,tmpfs-size=SIZE][,tmpfs-mode=MODE]; volumes with a name are not kept here"
    )


def shown(tmpfs: Sequence[str], volumes: Sequence[Volume]) -> Iterator[Mount]:
    """Yield the mounts of what is asked for. Raises UsageError."""
    for text in tmpfs:
        yield tmpfs_mount(text)
    for volume in volumes:
        yield Mount(volume.target, "bind", str(volume.source), ("rbind", volume.mode))
