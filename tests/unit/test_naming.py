"""A name is never given to an image whose blobs are being collected."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from imagetool import api
from imagetool.content.staging import locked
from imagetool.errors import NotFound


def test_a_name_waits_for_a_collection_and_finds_what_that_left(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    place = api.Workplace(tmp_path / "root")
    api.build(tmp_path / "context", api.BuildOptions(tags=["one"]), place)
    refused: list[NotFound] = []

    def name_it() -> None:
        try:
            api.tag("one", "two", place)
        except NotFound as error:
            refused.append(error)

    with locked(place.store.folder / "blobs"):  # as a collection does
        thread = threading.Thread(target=name_it)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
        place.store.untag("one:latest")
    thread.join()
    assert refused
    assert list(place.store.names()) == []
    with pytest.raises(NotFound):
        api.tag("one", "two", place)
