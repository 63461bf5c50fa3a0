"""`limits`: the bounds on untrusted input, as they are for this run."""

from __future__ import annotations

import sys
from json import dumps

from imagetool import limits as bounds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagetool.cli.commands import Globals


def limits(globals: Globals, *, json: bool) -> None:
    """List the limits as they are for this run."""
    names = {name: bounds.setting(name) for name in bounds.BOUNDED}
    if json:
        sys.stdout.write(dumps({shown: getattr(bounds, name) for name, shown in names.items()}, indent=2) + "\n")
        return
    from imagetool.cli.render import table

    rows = [("LIMIT", "VALUE", "WHAT IT BOUNDS")]
    rows += [(shown, f"{getattr(bounds, name):.0f}", bounds.BOUNDED[name]) for name, shown in names.items()]
    sys.stdout.write(table(rows))
    sys.stderr.write("Set them with --limit NAME=VALUE or IMAGETOOL_LIMITS; VALUE may have KiB, MiB, GiB or TiB.\n")
