"""`cache`: what is kept from build to build."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagetool.cli.commands import Globals


def cache(globals: Globals, *, action: str, place: str | None, id: Sequence[str], json: bool, progress: str) -> None:
    """List, remove, export or import cache mounts; prune forgets the steps as well."""
    from imagetool.cli.options import workplace
    from imagetool.cli.render import amount_of, counted
    from imagetool.errors import UsageError
    from imagetool.verbs import cachemounts

    if (action in ("export", "import")) != (place is not None):
        raise UsageError(f"cache {action}: " + ("write where to or from" if place is None else "takes no place"))
    with workplace(globals, progress) as here:
        folder = _of_these_ids(here.root / "cache-mounts")
        if action == "ls" and json:
            sys.stdout.write(f"{cachemounts.listing(folder)}\n")
        elif action == "ls":
            for mount in cachemounts.mounts(folder):
                sys.stdout.write(f"{amount_of(mount.size):>10}  {mount.id or mount.name}\n")
        elif action == "prune":
            count, size = cachemounts.prune_mounts(folder, id)
            steps = 0 if id else here.cache.clear()
            mounts = f"{counted(count, 'cache mount')} of {amount_of(size)}"
            sys.stdout.write(f"removed {counted(steps, 'step')} and {mounts}\n")
        elif action == "export":
            store = here.store
            with store.session():
                done = cachemounts.export_mounts(folder, id, str(place), store, here.surroundings, here.observer)
            sys.stdout.write("".join(f"{mount.id or mount.name}\n" for mount in done))
        else:
            names = cachemounts.import_mounts(folder, str(place), here.surroundings, here.observer)
            sys.stdout.write("".join(f"{name}\n" for name in names))


def _of_these_ids(folder: Path) -> Path:
    """Return where the cache mounts of this user's builds are, and become who may touch their files."""
    from imagetool.content.folders import of_these_ids
    from imagetool.runtime.namespaces import enter_user_namespace

    if os.geteuid() != 0:
        enter_user_namespace()
    return of_these_ids(folder)
