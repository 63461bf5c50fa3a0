"""Working containers: stages that are built by hand, one command at a time, and kept in between.

What commands change are layers of the local store, as of the steps of a build, and durable before
the container's record, which is replaced by rename, names them. So a command that is killed has
happened or has not, and a container outlives the machine's next start, which no unpacked snapshot
does. Where records are kept is in `containers`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

from imagetool.build.state import StageState
from imagetool.errors import InvalidDocument
from imagetool.image.image import Layer
from imagetool.oci import document
from imagetool.oci.config import ImageConfig
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from imagetool.oci.document import get, get_list, get_string_map, get_strings
from imagetool.values import dataclass, field

_VERSION: Final = 1


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
    runs: what `from` and `config` said of every command that is run in it, by the names that options of `run` have.
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
    runs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> Iterator[Layer]:
        """Every layer that the container needs."""
        yield from self.state.layers
        for layers in self.failed.sources.values() if self.failed else ():
            yield from layers

    def image_config(self) -> dict[str, Any]:
        """Return the config of the image as it stands, of no moment yet, as JSON."""
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
        found: dict[str, Any] = json.loads(config.raw)
        return found

    def render(self) -> bytes:
        """Return the record's bytes."""
        state = self.state
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
            "config": self.image_config(),
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
            "runs": dict(self.runs),
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
            runs=_runs(tree, what),
        )


def _runs(tree: dict[str, Any], what: str) -> dict[str, Any]:
    """Read options: each a text, a list of texts, or true."""
    found: dict[str, Any] = get(tree, "runs", dict, {}, path="$", what=what)
    for name, value in found.items():
        texts = value if isinstance(value, list) else [value]
        if value is not True and not all(isinstance(text, str) for text in texts):
            raise InvalidDocument(f"{what}: $.runs.{name} is not what an option has")
    return found


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
