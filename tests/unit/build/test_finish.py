"""What is done to an image in the end: squashing keeps the root filesystem, and names are taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagetool.build.finish import Finish
from imagetool.oci.config import RunConfig
from tests.support.workshop import Workshop, file, folder, link, tree

DOCKERFILE = "FROM base\nCOPY a /new/a\nRUN x\nENV a=b\nCOPY a /etc/passwd\nWORKDIR /made\n"


def change(upper: Path) -> int:
    """Act as a step: remove, replace, link."""
    (upper / "there").mkdir(mode=0o700)
    (upper / "made").mkdir()
    (upper / "made/one").write_text("one")
    (upper / "made/two").hardlink_to(upper / "made/one")
    (upper / "etc").mkdir()
    (upper / "etc/link").write_text("no link any more")
    return 0


def summary(image: Any) -> dict[str, Any]:
    return {name: (entry._replace(size=0), data) for name, (entry, data) in tree(image).items()}


@pytest.mark.parametrize("squash", ["new", "all"])
def test_squashing_changes_layers_and_nothing_else(shop: Workshop, squash: str) -> None:
    shop.write("a", "copied")
    shop.executor.act = change
    plain = shop.build(DOCKERFILE)
    image = shop.build(DOCKERFILE, finish=Finish(squash=squash))
    assert summary(image) == summary(plain)
    assert len(plain.layers) > 3
    assert len(image.layers) == (2 if squash == "new" else 1)
    assert (image.layers[0] == plain.layers[0]) == (squash == "new")
    assert sum(not entry.empty_layer for entry in image.config.history) == len(image.layers)
    assert image.config.run == plain.config.run


def test_what_a_build_removed_stays_removed_when_squashed(shop: Workshop) -> None:
    from imagetool.build.files import LayerFiles
    from imagetool.build.squash import squashed
    from imagetool.content.memory import MemoryStore
    from imagetool.image.image import opener
    from imagetool.image.write import write_layer
    from imagetool.layer.merge import flatten, merge
    from imagetool.layer.tarcodec import write
    from imagetool.streams.codecs import Codec

    store = MemoryStore()
    layers = [
        [
            folder("d"),
            file("d/a", "1"),
            file("d/b", "2"),
            folder("e"),
            file("e/x", "3"),
            file("f", "4"),
            link("l", "d"),
        ],
        [file("d/.wh.a"), file("e", "now a file"), file(".wh.f"), folder("f"), file("f/inner", "5")],
        [file("d/a", "again"), file("d/.wh.b"), file(".wh.l"), folder("l"), file("l/deep", "6")],
    ]
    made = [write_layer(write(layer), store, Codec()) for layer in layers]
    openers = [(opener(store, layer), "layer") for layer in made]
    base = merge(openers[:1])
    one = write_layer(write(squashed(LayerFiles(openers), base, time=0)), store, Codec())
    both = [openers[0], (opener(store, one), "squashed")]
    expected = {entry.name: (entry, b"".join(content)) for entry, content in flatten(openers)}
    assert {entry.name: (entry, b"".join(content)) for entry, content in flatten(both)} == expected


def test_variables_and_labels_are_taken_away_whoever_set_them(shop: Workshop) -> None:
    shop.base("other", folder("x"), run=RunConfig(env=("A=1", "PATH=/bin"), labels={"l": "1", "m": "2"}))
    finish = Finish(
        labels={"n": "3"}, annotations={"org.x": "y"}, unset_env=frozenset("AB"), unset_labels=frozenset("lo")
    )
    image = shop.build("FROM other\nENV B=2 C=3\nLABEL o=1\n", finish=finish)
    assert image.config.run.env == ("PATH=/bin", "C=3")
    assert image.config.run.labels == {"m": "2", "n": "3"}
    assert b'"org.x":"y"' in image.manifest.raw
