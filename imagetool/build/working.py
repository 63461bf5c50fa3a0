"""Working containers: stages that are built by hand, one command at a time, and kept in between.

    FOLDER/NAME/container.json   the stage as it stands: an image config, its layers, where it comes from
    FOLDER/NAME/edit-HEX/        what is changed by hand below its mount: an overlay's directories
    FOLDER/NAME/root             where it is mounted
    FOLDER/.new/                 containers being made or removed

What commands change are layers of the local store, as of the steps of a build, and durable before
container.json, which is replaced by rename, names them. So a command that is killed has happened
or has not, and a container outlives the machine's next start, which no unpacked snapshot does.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from imagetool import limits
from imagetool.build.state import StageState
from imagetool.content.staging import make_folder, open_stored, replace_file, storage_errors, sync_folder
from imagetool.dockerfile.source import did_you_mean
from imagetool.errors import InvalidDocument, NotFound, StorageError, UsageError
from imagetool.image.image import Layer
from imagetool.oci import document
from imagetool.oci.config import ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.document import get, get_list, get_string_map, get_strings
from imagetool.snapshot.folders import STAGED, new_folder, remove_folder, sweep
from imagetool.values import dataclass, field, replace

RECORD: Final = "container.json"
_NEW: Final = ".new"
_VERSION: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_LEAST_ID: Final = 4  # digits of an identity that are enough to name a container


@dataclass(frozen=True, slots=True)
class FailedStep:
    """The RUN of a Dockerfile that a container was left by.

    text: the instruction as written; place: its file and line. argv: what ran; script: path and text of a
    program that it brought along. status: how it ended. network: of the step. mounts: its --mount options,
    secrets and agents left out. context: the build context. sources: the layers that mounts name by `from`.
    proxies: the proxy settings that were build arguments.
    """

    text: str
    place: str
    argv: tuple[str, ...]
    status: int
    script: tuple[str, str] | None = None
    network: str = "default"
    mounts: tuple[str, ...] = ()
    context: str = ""
    sources: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict)
    proxies: Mapping[str, str] = field(default_factory=dict)

    def tree(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "text": self.text,
            "place": self.place,
            "argv": list(self.argv),
            "status": self.status,
            "script": list(self.script or ()),
            "network": self.network,
            "mounts": list(self.mounts),
            "context": self.context,
            "sources": {name: [_layer_tree(layer) for layer in layers] for name, layers in self.sources.items()},
            "proxies": dict(self.proxies),
        }

    @classmethod
    def read(cls, tree: Mapping[str, Any], *, what: str) -> FailedStep:
        """Read the JSON form."""
        at = "$.failed"
        sources = get(tree, "sources", dict, {}, path=at, what=what)
        script = get_strings(tree, "script", path=at, what=what)
        return cls(
            text=get(tree, "text", str, None, path=at, what=what),
            place=get(tree, "place", str, "", path=at, what=what),
            argv=get_strings(tree, "argv", path=at, what=what),
            status=get(tree, "status", int, None, path=at, what=what),
            script=(script[0], script[1]) if len(script) == 2 else None,
            network=get(tree, "network", str, "default", path=at, what=what),
            mounts=get_strings(tree, "mounts", path=at, what=what),
            context=get(tree, "context", str, "", path=at, what=what),
            sources={name: _layers(sources, name, path=f"{at}.sources", what=what) for name in sources},
            proxies=get_string_map(tree, "proxies", path=at, what=what),
        )


@dataclass(frozen=True, slots=True)
class Remains:
    """What a failed step left: the stage with the step's changes as its last layer, and which step it was."""

    state: StageState
    step: FailedStep


@dataclass(frozen=True, slots=True)
class WorkingContainer:
    """A stage under way, and what its image will be told apart from its configuration.

    identity: 64 hexadecimal digits. image: the name it began from; digest: of that image's manifest, "" for none.
    created: when, RFC 3339. epoch: the moment its image is of, in seconds; preserve: keep times of files.
    compression: of its layers, as --compression. annotations: of the manifest.
    created_by, comment: of the last line of the image's history, where they are not "".
    base_history: how many lines of history are those of the image it began from.
    edit: the directory of changes by hand that are no layer yet, "" for none.
    """

    identity: str
    image: str
    digest: str
    state: StageState
    created: str
    epoch: int
    preserve: bool = False
    compression: str = "gzip"
    annotations: Mapping[str, str] = field(default_factory=dict)
    created_by: str = ""
    comment: str = ""
    base_history: int = 0
    edit: str = ""
    failed: FailedStep | None = None

    @property
    def layers(self) -> Iterator[Layer]:
        """Every layer that the container needs."""
        yield from self.state.layers
        for layers in self.failed.sources.values() if self.failed else ():
            yield from layers

    def render(self) -> bytes:
        """Return the record's bytes."""
        state = self.state
        config = ImageConfig.make(
            platform=state.platform,
            run=state.run,
            diff_ids=[layer.diff_id for layer in state.layers],
            history=state.history,
            created="",
            author=state.author,
            extra=state.extra,
        )
        environment = state.run.environment
        tree = {
            "version": _VERSION,
            "id": self.identity,
            "image": self.image,
            "digest": self.digest,
            "created": self.created,
            "epoch": self.epoch,
            "preserve": self.preserve,
            "compression": self.compression,
            "config": json.loads(config.raw),
            "layers": [layer.descriptor.tree() for layer in state.layers],
            "base_layers": state.base_layers,
            "base_history": self.base_history,
            "cmd_set": state.cmd_set,
            "args": dict(state.args),
            "variables": {name: value for name, value in state.variables.items() if environment.get(name) != value},
            "annotations": dict(self.annotations),
            "created_by": self.created_by,
            "comment": self.comment,
            "edit": self.edit,
            "failed": self.failed.tree() if self.failed else None,
        }
        return document.encode(tree)

    @classmethod
    def parse(cls, raw: bytes, *, what: str) -> WorkingContainer:
        """Read a record. Raises InvalidDocument."""
        tree = document.decode(raw, what=what)
        if get(tree, "version", int, None, path="$", what=what) != _VERSION:
            raise InvalidDocument(f"{what}: it was written by another version of imagetool")
        failed = get(tree, "failed", dict, {}, path="$", what=what)
        edit = get(tree, "edit", str, "", path="$", what=what)
        if "/" in edit:
            raise InvalidDocument(f"{what}: $.edit is not the name of a directory")
        return cls(
            identity=get(tree, "id", str, None, path="$", what=what),
            image=get(tree, "image", str, "", path="$", what=what),
            digest=get(tree, "digest", str, "", path="$", what=what),
            state=_state(tree, what),
            created=get(tree, "created", str, "", path="$", what=what),
            epoch=get(tree, "epoch", int, None, path="$", what=what),
            preserve=get(tree, "preserve", bool, False, path="$", what=what),
            compression=get(tree, "compression", str, "gzip", path="$", what=what),
            annotations=get_string_map(tree, "annotations", path="$", what=what),
            created_by=get(tree, "created_by", str, "", path="$", what=what),
            comment=get(tree, "comment", str, "", path="$", what=what),
            base_history=get(tree, "base_history", int, 0, path="$", what=what),
            edit=edit,
            failed=FailedStep.read(failed, what=what) if failed else None,
        )


def _state(tree: dict[str, Any], what: str) -> StageState:
    config = ImageConfig.parse(document.encode(get(tree, "config", dict, None, path="$", what=what)), what=what)
    descriptors = get_list(
        tree, "layers", lambda value, at: Descriptor.read(value, path=at, what=what), path="$", what=what
    )
    if len(descriptors) != len(config.diff_ids):
        raise InvalidDocument(f"{what}: {len(descriptors)} layers, but {len(config.diff_ids)} diff IDs")
    return StageState(
        platform=config.platform,
        run=config.run,
        layers=tuple(Layer(one, diff_id) for one, diff_id in zip(descriptors, config.diff_ids, strict=True)),
        history=config.history,
        author=config.author,
        variables={**config.run.environment, **get_string_map(tree, "variables", path="$", what=what)},
        args=get_string_map(tree, "args", path="$", what=what),
        cmd_set=get(tree, "cmd_set", bool, False, path="$", what=what),
        base_layers=get(tree, "base_layers", int, 0, path="$", what=what),
    )


def _layer_tree(layer: Layer) -> dict[str, Any]:
    return {"descriptor": layer.descriptor.tree(), "diff_id": str(layer.diff_id)}


def _layers(tree: Mapping[str, Any], name: str, *, path: str, what: str) -> tuple[Layer, ...]:
    def read(value: object, at: str) -> Layer:
        one: dict[str, Any] = document.expect(value, dict, at, what)
        descriptor = Descriptor.read(one.get("descriptor"), path=f"{at}.descriptor", what=what)
        return Layer(descriptor, Digest.parse(get(one, "diff_id", str, None, path=at, what=what)))

    return tuple(get_list(tree, name, read, path=path, what=what))


def new_identity() -> str:
    """Return a new container's identity."""
    return secrets.token_hex(32)


class Held:
    """A container that nobody else changes meanwhile; see `Containers.held`."""

    def __init__(self, name: str, folder: Path, record: WorkingContainer) -> None:
        self.name = name
        self.folder = folder
        self.record = record

    def save(self, **changes: Any) -> None:
        """Replace fields of the record, durably."""
        record = replace(self.record, **changes)
        replace_file(self.folder / RECORD, record.render())
        self.record = record


class Containers:
    """The working containers of a folder; safe for several processes at once. Nothing is made before the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names there are, sorted."""
        try:
            listed = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot read {self._folder}: {error.strerror}") from error
        return sorted(name for name in listed if not name.startswith("."))

    def folder(self, name: str) -> Path:
        """Return where a container's things are."""
        return self._folder / name

    def read(self, name: str) -> WorkingContainer:
        """Return a container's record as it is now. Raises NotFound when it is, or has just been, removed."""
        path = self._folder / name / RECORD
        try:
            with open_stored(path) as file:
                raw = file.read(limits.DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            raise self.unknown(name) from None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        return WorkingContainer.parse(raw, what=str(path))

    def records(self) -> Iterator[tuple[str, WorkingContainer]]:
        """Yield every container, oldest first."""
        found = []
        for name in self.names():
            try:
                found.append((name, self.read(name)))
            except NotFound:  # removed meanwhile
                continue
        yield from sorted(found, key=lambda pair: (pair[1].created, pair[0]))

    def find(self, text: str) -> str | None:
        """Return the container that a name, or the beginning of an identity, means; None for none."""
        if _NAME.fullmatch(text) and (self._folder / text / RECORD).exists():
            return text
        if len(text) < _LEAST_ID or set(text) - set("0123456789abcdef"):
            return None
        found = [name for name, record in self.records() if record.identity.startswith(text)]
        return found[0] if len(found) == 1 else None

    def named(self, text: str) -> str:
        """Return the container that a name, or the beginning of an identity, means. Raises NotFound."""
        found = self.find(text)
        if found is None:
            raise self.unknown(text)
        return found

    def unknown(self, text: str) -> NotFound:
        """Make the error that says that there is no container of a name."""
        names = self.names()
        known = f"; there are: {', '.join(names[:8])}" if names else "; `imagetool from IMAGE` makes one"
        return NotFound(f"no working container {text[:80]!r}{did_you_mean(text, names)}{known}")

    def make(self, record: WorkingContainer, *, name: str = "", stem: str = "") -> str:
        """Keep a new container; return its name.

        Args:
            name: its name; raises UsageError when it cannot be one, or when there is one of that name.
            stem: what it is named after without a `name`: itself, else with a number behind it.
        """
        if name and not _NAME.fullmatch(name):
            raise UsageError(f"--name {name[:80]!r}: a name has letters, digits, dots, dashes and underscores")
        with storage_errors(f"cannot make a container in {self._folder}"):
            make_folder(self._folder)
            os.chmod(self._folder, 0o700)  # what is edited in it may be setuid
            make_folder(self._folder / _NEW)
            sweep(self._folder / _NEW)
        with new_folder(self._folder / _NEW) as folder:
            replace_file(folder / RECORD, record.render())
            for wanted in [name] if name else _numbered(stem):
                if self._placed(folder, wanted):
                    return wanted
        raise UsageError(
            f"there is a working container {name!r} already; take another --name, or `imagetool rm {name}`"
        )

    def _placed(self, folder: Path, name: str) -> bool:
        with storage_errors(f"cannot make the container {name}"):
            try:
                os.rename(folder, self._folder / name)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return False
            sync_folder(self._folder)
        return True

    @contextmanager
    def held(self, text: str, *, waiting: Callable[[str], None]) -> Iterator[Held]:
        """Hold a container, by name or the beginning of its identity, against all others.

        `waiting` is told when somebody else has it. Raises NotFound.
        """
        name = self.named(text)
        folder = self._folder / name
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self.unknown(text) from None
        try:
            with storage_errors(f"cannot lock {folder}"):
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    waiting(f"waiting for the container {name}, which another imagetool works in")
                    fcntl.flock(fd, fcntl.LOCK_EX)
            if not os.fstat(fd).st_nlink or not _is_at(fd, folder):
                raise self.unknown(text)
            yield Held(name, folder, self.read(name))
        finally:
            os.close(fd)

    def remove(self, held: Held) -> None:
        """Remove a container that is held, with all that is in its folder."""
        with storage_errors(f"cannot remove the container {held.name}"):
            make_folder(self._folder / _NEW)
            gone = self._folder / _NEW / f"{STAGED}{secrets.token_hex(8)}"  # swept when we are killed from here on
            os.rename(held.folder, gone)
            sync_folder(gone.parent)
            sync_folder(self._folder)
        remove_folder(gone.parent, gone.name)


def _numbered(stem: str) -> Iterator[str]:
    """Yield names without end: a stem made a name, then with 1, 2, … behind it."""
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-_.")[:100] or "working-container"
    yield cleaned
    yield from (f"{cleaned}-{number}" for number in itertools.count(1))


def _is_at(fd: int, folder: Path) -> bool:
    """Say whether an open folder is still the one of its name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(folder))
    except FileNotFoundError:
        return False
