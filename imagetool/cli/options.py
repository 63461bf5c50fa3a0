"""What several commands share."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagetool.api import Workplace
    from imagetool.cli.app import Globals


def workplace(globals: Globals, progress: str = "auto") -> Workplace:
    """Return the local store and the rest, as the global options say."""
    from pathlib import Path

    from imagetool.api import Workplace
    from imagetool.cli.render import observer
    from imagetool.config.environment import store_root

    authfile = Path(globals.authfile) if globals.authfile else None
    return Workplace(store_root(globals.root), globals.tls_verify, observer(progress), authfile)
