"""What several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagetool.api import Workplace
from imagetool.cli.display import display
from imagetool.config.environment import store_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagetool.cli.app import Globals
    from imagetool.progress import Observer
    from imagetool.streams.codecs import Codec


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
