"""Writers that come and go while others do."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imagetool.content.staging import StagedBlob


def test_a_folder_that_neighbours_remove_is_made_again(tmp_path: Path) -> None:
    """Each writer removes the staging folder when it is the last; the next one may be about to use it."""
    until = time.monotonic() + 1

    def come_and_go(_: int) -> int:
        count = 0
        while time.monotonic() < until:
            with StagedBlob(tmp_path / "staging", tmp_path / "blobs"):
                count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come_and_go, range(4))) > 10
