"""Snapshots last as long as the machine runs: what was not synced is not believed after a start."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from imagetool.content.memory import MemoryStore
from imagetool.image.image import opener
from imagetool.image.write import write_layer
from imagetool.layer.unpack import Ownership
from imagetool.snapshot import overlay
from imagetool.snapshot.overlay import OverlaySnapshotter
from imagetool.streams.codecs import Codec
from tests.support import tars


def snapshots(folder: Path) -> OverlaySnapshotter:
    return OverlaySnapshotter(folder, user_xattr=False, ownership=Ownership(lenient=True), warn=print)


def test_snapshots_are_kept_until_the_machine_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    layer = write_layer([tars.file(b"a", b"1") + tars.END], store, Codec())
    with snapshots(tmp_path).prepare([layer], partial(opener, store)) as workspace:
        (made,) = workspace.lowers
    snapshots(tmp_path)
    assert (made / "a").read_bytes() == b"1"
    monkeypatch.setattr(overlay, "boot_id", lambda: "another start")
    snapshots(tmp_path)
    assert not made.exists()
    with snapshots(tmp_path).prepare([layer], partial(opener, store)) as workspace:
        assert workspace.lowers == (made,)
    snapshots(tmp_path)
    assert (made / "a").read_bytes() == b"1"
    assert not list(tmp_path.glob("new-*"))
