"""Build in memory, without containers: what instructions do to files and to the configuration."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagetool.build.cache import FolderCache
from imagetool.build.solver import BuildRequest, solve
from imagetool.build.worker import Download, Times, Worker
from imagetool.content.memory import MemoryStore
from imagetool.dockerfile import IgnoreRules, parse
from imagetool.errors import NotFound
from imagetool.image.image import Image
from imagetool.image.write import write_image, write_layer
from imagetool.layer.entry import Entry, Item
from imagetool.layer.merge import flatten
from imagetool.layer.tarcodec import write
from imagetool.layer.unpack import Ownership
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.platform import Platform
from imagetool.progress import Event, Note, StepFinished
from imagetool.runtime.executors import ExitStatus, Output
from imagetool.runtime.network import Network
from imagetool.runtime.rootfs import Overlay, Rootfs
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.spec import RuntimeSpec
from imagetool.snapshot.overlay import OverlaySnapshotter
from imagetool.streams.codecs import Codec

EPOCH = 315_532_800 * 10**9


def folder(name: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Item:
    return Entry(name.encode(), "dir", mode, uid, gid), ()


def file(name: str, text: str = "", mode: int = 0o644, uid: int = 0, gid: int = 0) -> Item:
    data = text.encode()
    return Entry(name.encode(), "file", mode, uid, gid, len(data)), (data,) if data else ()


def link(name: str, target: str) -> Item:
    return Entry(name.encode(), "symlink", 0o777, linkname=target.encode()), ()


@dataclass
class Recorder:
    """An executor that writes down what it is asked to run, and lets a function change the upper directory."""

    act: Callable[[Path], int] = lambda _: 0
    seen: list[Mapping[str, Any]] = field(default_factory=list)

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output) -> ExitStatus:
        self.seen.append(spec.tree)
        assert isinstance(root, Overlay)
        return ExitStatus(self.act(root.upper))

    def connect(self, network: Network, sandbox: Sandbox) -> str:
        """There is no network."""
        return "nothing is run"

    def emulate(self, registration: str, sandbox: Sandbox) -> bool:
        """Nothing is run."""
        return False

    def stop(self) -> None:
        """There is nothing to end."""

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.seen[-1]["process"]
        return process

    @property
    def env(self) -> dict[str, str]:
        return dict(text.split("=", 1) for text in self.process["env"])


@dataclass
class Workshop:
    """A context, a store and base images; `build` builds a Dockerfile of text."""

    place: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    bases: dict[str, Image] = field(default_factory=dict)
    downloads: dict[str, tuple[str, int, bytes]] = field(default_factory=dict)
    executor: Recorder = field(default_factory=Recorder)
    events: list[Event] = field(default_factory=list)
    device_folders: tuple[Path, ...] = ()

    @property
    def context(self) -> Path:
        made = self.place / "context"
        made.mkdir(exist_ok=True)
        return made

    def write(self, name: str, data: str | bytes = "", mode: int = 0o644) -> Path:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        return path

    def base(self, name: str, *items: Item, run: RunConfig | None = None) -> Image:
        """Make a base image of entries."""
        layer = write_layer(write(list(items)), self.store, Codec())
        config = ImageConfig.make(
            platform=Platform(),
            run=run or RunConfig(),
            diff_ids=[layer.diff_id],
            history=[History("1970-01-01T00:00:00Z", f"base {name}")],
            created="1970-01-01T00:00:00Z",
        )
        self.bases[name] = Image(write_image(self.store, config, [layer]), config, (layer,), self.store)
        return self.bases[name]

    def build(self, text: str, **request: Any) -> Image:
        """Build a Dockerfile; `ignore` is the text of a .dockerignore."""
        ignore = IgnoreRules.parse(request.pop("ignore", "").encode(), file=".dockerignore")
        times = request.pop("times", Times())
        single_id = request.pop("single_id", False)
        self.events.clear()
        worker = Worker(
            store=self.store,
            snapshots=self._snapshots,
            executor=lambda: self.executor,
            cache=FolderCache(self.place / "cache"),
            base=self._base,
            download=self._download,
            scratch=self.place / "scratch",
            caches=self.place / "caches",
            codec=Codec(),
            times=times,
            single_id=single_id,
            device_folders=self.device_folders,
        )
        wanted = BuildRequest(parse(text.encode(), file="Dockerfile"), self.context, ignore, **request)
        return solve(wanted, worker, observer=self.events.append)

    @property
    def cached(self) -> list[bool]:
        """Whether each step of the last build came from the cache."""
        return [event.cached for event in self.events if isinstance(event, StepFinished)]

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    def _snapshots(self) -> OverlaySnapshotter:
        return OverlaySnapshotter(
            self.place / "snapshots",
            user_xattr=True,
            ownership=Ownership(owners=False, lenient=True),
            warn=lambda _: None,
        )

    def _base(self, name: str, platform: Platform) -> Image:
        if name not in self.bases:
            raise NotFound(f"no image {name}")
        return self.bases[name]

    @contextlib.contextmanager
    def _download(self, url: str) -> Iterator[Download]:
        if url not in self.downloads:
            raise NotFound(f"nothing at {url}")
        _, modified, data = self.downloads[url]
        yield Download(posixpath.basename(url.partition("?")[0]), modified, iter([data]))


def tree(image: Image, *, layers: Sequence[int] | None = None) -> dict[str, tuple[Entry, bytes]]:
    """Return path -> (entry, content) of an image, or of some of its layers; the root itself is left out."""
    openers = image.openers() if layers is None else [image.openers()[number] for number in layers]
    items = {entry.name.decode(): (entry, b"".join(content)) for entry, content in flatten(openers)}
    items.pop(".", None)
    return items


def texts(image: Image, **which: Any) -> dict[str, str]:
    """Return path -> content of the regular files."""
    return {
        name: data.decode() for name, (entry, data) in tree(image, **which).items() if entry.kind in ("file", "link")
    }
