"""What a build works with: where results go, where roots are made, who runs commands, which times are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from imagetool.build.cache import BuildCache
from imagetool.build.filestates import FileStates
from imagetool.content.store import Fetcher, Ingester, Pusher
from imagetool.image.image import Image
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from imagetool.values import dataclass, field

if TYPE_CHECKING:  # a build whose steps are all cached needs neither
    from imagetool.runtime.executors import Executor
    from imagetool.runtime.network import Network
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.snapshot.overlay import Snapshotter

#: 1980-01-01T00:00:00Z: the first moment that zip archives, which many builds make, can hold.
DEFAULT_EPOCH: Final = 315_532_800
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Times:
    """Which times a build writes; see docs/adr/0003.

    epoch: SOURCE_DATE_EPOCH, in seconds.
    preserve: keep the times of files instead of clamping them to the epoch.
    rewrite: clamp those of the build context, too, instead of giving them the epoch itself.
    told: somebody said the epoch: with `preserve`, too, it is what the image was created at.
    """

    epoch: int = DEFAULT_EPOCH
    preserve: bool = False
    rewrite: bool = False
    told: bool = False

    @property
    def key(self) -> str | int | list[str | int]:
        """What of this the result of a step hangs on, for cache keys."""
        return "preserve" if self.preserve else ["rewrite", self.epoch] if self.rewrite else self.epoch

    @property
    def clamp(self) -> int | None:
        """The latest time of a file in a new layer, in nanoseconds; None for no bound."""
        return None if self.preserve else self.epoch * _SECOND

    @property
    def made(self) -> int:
        """The time, in nanoseconds, of directories the builder itself makes."""
        return time.time_ns() // _SECOND * _SECOND if self.preserve else self.epoch * _SECOND

    def of_context(self, mtime: int) -> int:
        """Return the time of a file of the build context.

        A checkout gives files the time it was made, so it is not kept at all: the epoch itself.
        """
        return self.of_layer(mtime) if self.preserve or self.rewrite else self.epoch * _SECOND

    def of_layer(self, mtime: int) -> int:
        """Return the time of a file that comes from another layer or archive."""
        return mtime if self.preserve else min(mtime, self.epoch * _SECOND)

    @property
    def created(self) -> str:
        """The `created` of the image and its history."""
        seconds = time.time() if self.preserve and not self.told else self.epoch
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Store(Fetcher, Pusher, Ingester, Protocol):
    """Where layers, configs and manifests of the build go."""


BaseResolver = Callable[[str, Platform], Image]
"""Gives the image that a FROM or --from names, for a platform; raises NotFound and the like."""


@dataclass(frozen=True, slots=True)
class Download:
    """What ADD got from a URL. `name` is the last part of its path; `modified` is in nanoseconds, 0 when not told."""

    name: str
    modified: int
    chunks: Iterator[bytes]


Downloader = Callable[[str], AbstractContextManager[Download]]


class Witness(Protocol):
    """Is told of everything outside the store that a build looks at; see `unchanged`."""

    def saw(self, name: bytes, state: bytes) -> None:
        """A file's content and attributes, a directory's names, or a link's target.

        `name` is as of `Entry.name`, `state` as of `unchanged.state_of`.
        """
        ...

    def passed(self, name: bytes) -> None:
        """That there is a directory of the context on the way to a file, whatever else is in it."""
        ...

    def opened(self, path: str) -> None:
        """A file outside the context's rules, as the Dockerfile; also that there is none."""
        ...

    def based(self, text: str, name: str, digest: str) -> None:
        """Which image `text` names: the root's name in the local store, "" for none, and its digest."""
        ...

    def opaque(self) -> None:
        """Something that cannot be told: this build is never known to be unchanged."""
        ...


class Unwatched:
    """The witness of builds that are not recorded."""

    def saw(self, name: bytes, state: bytes) -> None:
        """Do nothing."""

    def passed(self, name: bytes) -> None:
        """Do nothing."""

    def opened(self, path: str) -> None:
        """Do nothing."""

    def based(self, text: str, name: str, digest: str) -> None:
        """Do nothing."""

    def opaque(self) -> None:
        """Do nothing."""


def _plain_network(asked: str) -> Network:
    """Return no network or the host's, for whoever starts no helpers."""
    from imagetool.runtime.network import HOST, NONE

    return NONE if asked == "none" else HOST


@dataclass(frozen=True, slots=True)
class Worker:
    """The resources of a build; for several threads at once.

    `executor` starts one when the first RUN step needs it, and `stop` ends what it is running.
    `emulate` is asked before a step of a platform, and raises HostError when its programs cannot run.
    `network` says what a network that a step asks for is here, and raises HostError when it may not be had.
    `device_folders` hold the specs of devices, see `runtime.cdi`.
    `known` gives what is remembered of the files of a directory; None to read them every time.
    `asks_others` says that the cache may have what was made elsewhere: it is asked even for what is new here.
    `single_id` says that all files of steps belong to root, because there is no other id.
    `witness` must be told by whatever reads anything that is not in the store.
    """

    store: Store
    snapshots: Callable[[], Snapshotter]
    executor: Callable[[], Executor]
    cache: BuildCache
    base: BaseResolver
    download: Downloader
    scratch: Path
    caches: Path
    codec: Codec
    times: Times
    user_namespace: bool = False
    single_id: bool = False
    sandbox: Sandbox | None = None
    witness: Witness = field(default_factory=Unwatched)
    known: Callable[[Path], FileStates] | None = None
    asks_others: bool = False
    stop: Callable[[], None] = lambda: None
    emulate: Callable[[Platform], None] = lambda _: None
    network: Callable[[str], Network] = _plain_network
    device_folders: tuple[Path, ...] = ()
