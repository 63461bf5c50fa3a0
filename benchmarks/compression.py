"""Compression: a layer stored in one pass, its memory, and an image compressed anew, against skopeo."""

from __future__ import annotations

import sys

from benchmarks.layers import make_tree
from benchmarks.measure import Bench, Cost, measured

TITLE = "Compression"
NEEDS = ("skopeo",)

#: Stores a tar as a layer of a layout: argv is tar, layout, compression.
STORE = """
import sys
from pathlib import Path
from imagetool.content.layout import LayoutStore
from imagetool.image.write import write_image, write_layer
from imagetool.oci.config import ImageConfig, RunConfig
from imagetool.oci.platform import Platform
from imagetool.streams.codecs import Codec
from imagetool.streams.pump import read_chunks
store = LayoutStore.create(Path(sys.argv[2]))
with open(sys.argv[1], "rb") as file:
    layer = write_layer(read_chunks(file), store, Codec.parse(sys.argv[3]))
parts = {"platform": Platform(), "run": RunConfig(), "diff_ids": [layer.diff_id], "history": [], "created": ""}
store.tag(write_image(store, ImageConfig.make(**parts), [layer]).descriptor, "app")
"""


def run(bench: Bench) -> None:
    """Measure all of it on one tar of 300 MB in 20,000 files."""
    tar = bench.folder / "layer.tar"
    make_tree(bench.folder / "tree", 20_000, 300_000_000)
    measured(["tar", "--sort=name", "-C", str(bench.folder / "tree"), "-cf", str(tar), "."])

    def store(compression: str) -> Cost:
        bench.remove("layout")
        return measured([sys.executable, "-c", STORE, str(tar), str(bench.folder / "layout"), compression])

    size = tar.stat().st_size >> 20
    bench.limit(f"memory to store a tar of {size} MiB as gzip", ours=lambda: store("gzip"), figure="rss", at_most=64)
    bench.limit(f"gzip, both digests, store: {size} MiB", ours=lambda: store("gzip"), figure="cpu", at_most=2.5)
    source = f"oci:{bench.folder / 'layout'}:app"

    def ours() -> Cost:
        bench.remove("made")
        options = ("--compression", "zstd", "--progress", "quiet")
        return measured(bench.imagetool("copy", *options, source, f"oci:{bench.folder / 'made'}:app"))

    def theirs() -> Cost:
        bench.remove("made")
        options = ("-q", "--dest-compress-format", "zstd")
        return measured(["skopeo", "copy", *options, source, f"oci:{bench.folder / 'made'}:app"])

    for figure in ("wall", "cpu"):
        what = f"compress anew, gzip to zstd, {size} MiB"
        bench.compare(what, "skopeo copy", ours=ours, theirs=theirs, figure=figure, target=1.5)  # type: ignore[arg-type]
