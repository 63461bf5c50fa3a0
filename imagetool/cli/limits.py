"""`limits`: the bounds on untrusted input, as they are for this run."""

from __future__ import annotations

import sys
from json import dumps

from imagetool import limits as bounds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagetool.cli.app import Globals


def limits(globals: Globals, *, json: bool) -> None:
    """List the limits that IMAGETOOL_LIMITS can set."""
    names = {name: name.lower().replace("_", "-") for name in bounds.ADJUSTABLE}
    if json:
        sys.stdout.write(dumps({shown: getattr(bounds, name) for name, shown in names.items()}, indent=2) + "\n")
        return
    from imagetool.cli.render import table

    rows = [("LIMIT", "VALUE", "WHAT IT BOUNDS")]
    rows += [(shown, str(getattr(bounds, name)), bounds.ADJUSTABLE[name]) for name, shown in names.items()]
    sys.stdout.write(table(rows))
    sys.stderr.write("Set them with IMAGETOOL_LIMITS=NAME=VALUE,…; VALUE may have KiB, MiB, GiB or TiB.\n")
