"""Writers that come and go while others do."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imagetool.content.staging import StagedBlob


def test_a_folder_that_neighbours_remove_is_made_again(tmp_path: Path) -> None:
    """Each writer removes the staging folder when it is the last; the next one may be about to use it."""
    together = threading.Barrier(4)

    def come_and_go(_: int) -> None:
        together.wait()
        for _ in range(1000):
            with StagedBlob(tmp_path / "staging", tmp_path / "blobs"):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert not (tmp_path / "staging").exists()
