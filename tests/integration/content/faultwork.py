"""What is done to a store while its disk fails, and what must hold afterwards: run by `test_faults`, in a process.

python -m tests.integration.content.faultwork WORK STRIKE FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.integration.content import faultplaces, faultstores
from tests.integration.content.faultstores import Tell
from tests.support.faults import STRIKES, Strike, Struck, each_point


@dataclass(frozen=True)
class Case:
    start: Callable[[Path], None]
    work: Callable[[Path, Tell], None]
    check: Callable[[Path, Struck, Strike], None]
    points: int  # at least
    strikes: tuple[Strike, ...] = STRIKES


CASES = {
    "build and tag": Case(faultstores.start, faultstores.build_and_tag, faultstores.names_after, 45),
    "tag over": Case(faultstores.start, faultstores.tag_over, faultstores.names_after, 5),
    "untag and collect": Case(faultstores.start, faultstores.untag_and_collect, faultstores.names_after, 9),
    "make": Case(lambda folder: folder.mkdir(), faultstores.make, faultstores.made_after, 50),
    "cache": Case(faultstores.start_cache, faultstores.cache, faultstores.cached_after, 9),
    "snapshots": Case(faultplaces.start_snapshots, faultplaces.unpack_and_discard, faultplaces.snapshots_after, 30),
    **{
        place.partition(":")[0]: Case(
            faultplaces.start_copies,
            partial(faultplaces.send_new, place),
            partial(faultplaces.sent_after, place),
            points,
        )
        for place, points in faultplaces.DESTINATIONS.items()
    },
    "by hand": Case(faultplaces.start_hand, faultplaces.by_hand, faultplaces.hand_after, 60),
    "unpack and repack": Case(faultplaces.start_bundle, faultplaces.unpack_and_repack, faultplaces.bundle_after, 20),
}


def main(name: str, strike: Strike, folder: Path) -> None:
    """Let the disk fail at every point of a case; after each failure the same work must succeed."""
    case = CASES[name]
    case.start(folder / "template")

    def check(place: Path, struck: Struck) -> None:
        case.check(place, struck, strike)
        told: list[str] = []
        case.work(place, told.append)
        case.check(place, Struck(True, told, "", ""), strike)

    points = each_point(folder / "template", folder, strike, case.work, check)
    assert points >= case.points, f"only {points} points were found: is everything watched?"
    print(points)


if __name__ == "__main__":
    assert sys.argv[2] in STRIKES
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))  # type: ignore[arg-type]
