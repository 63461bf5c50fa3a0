"""What several commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagetool.api import Workplace
from imagetool.cli.display import display
from imagetool.config.environment import store_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagetool.cli.commands import Globals
    from imagetool.progress import Observer
    from imagetool.runtime.executors import ExitStatus
    from imagetool.streams.codecs import Codec
    from imagetool.verbs.run import RunOptions


def plain_workplace(globals: Globals, observer: Observer) -> Workplace:
    """Return the local store and the rest, as the global options say."""
    authfile = Path(globals.authfile) if globals.authfile else None
    return Workplace(store_root(globals.root), globals.tls_verify, observer, authfile)


@contextmanager
def workplace(globals: Globals, progress: str = "auto") -> Iterator[Workplace]:
    """Yield the local store and the rest, with a display of what happens; results are for after it."""
    with display(progress) as observer:
        yield plain_workplace(globals, observer)


def wanted_codec(compression: str | None, reproducible: bool) -> Codec | None:
    """Return what --compression and --reproducible-compression ask for, None when neither is given."""
    if compression is None and not reproducible:
        return None
    from imagetool.streams.codecs import Codec

    codec = Codec.parse(compression or "gzip")
    return codec.made_reproducible() if reproducible else codec


def write(stream: int, data: bytes) -> None:
    """Write what a container says to our own stdout or stderr."""
    view = memoryview(data)
    while view:
        view = view[os.write(stream, view) :]


def told(status: ExitStatus, options: RunOptions) -> int:
    """Tell what there is to tell of how a container ended; return its exit code."""
    if status.limit:
        sys.stderr.write(f"imagetool: the container met {status.limit}\n")
    if options.sandbox.measured:
        usage = status.usage
        sys.stderr.write(
            f"imagetool: used {usage.cpu_seconds:.2f} s of CPU time, {usage.peak_memory / (1 << 20):.1f} MiB of memory "
            f"at most, and wrote {usage.written / (1 << 20):.1f} MiB\n"
        )
    return status.code
