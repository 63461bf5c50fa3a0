"""Builds, against buildah: RUN steps, the same again, and many small files."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from functools import partial

from benchmarks.measure import PAIRS, Bench, Cost, Figure, measured

TITLE = "Builds"
NEEDS = ("buildah",)
SPACE = "8g"
FILES = 20_000
FILES_AGAIN = 47_000  # a rebuild of so many took buildah ten seconds where this was asked for


def run(bench: Bench) -> None:
    """Measure all of it."""
    _run_steps(bench)
    _many_files(bench)
    _stages(bench)
    _cached_steps(bench)


def _compare(
    bench: Bench,
    what: str,
    ours: list[str],
    theirs: list[str],
    *,
    peer: str = "buildah",
    figure: Figure = "wall",
    target: float,
    pairs: int = PAIRS,
) -> None:
    """Compare one command with another."""
    run = {"ours": partial(measured, ours), "theirs": partial(measured, theirs)}
    bench.compare(what, peer, **run, figure=figure, target=target, pairs=pairs)


def _fresh(bench: Bench) -> None:
    """Empty both stores but for the busybox base."""
    bench.remove("ours", "theirs", "out", "base")
    measured(bench.imagetool("base", "busybox"), bench.imagetool("copy", "busybox", f"oci:{bench.folder}/base:b"))
    measured(bench.buildah("pull", f"oci:{bench.folder}/base:b"))
    listed = subprocess.run(bench.buildah("images", "-q"), capture_output=True, text=True, check=True).stdout
    measured(bench.buildah("tag", listed.split()[0], "busybox"))


def _run_steps(bench: Bench) -> None:
    """Twelve steps, eleven of them RUN, then the same build again without a change."""
    context = bench.folder / "steps"
    context.mkdir()
    steps = "".join(f"RUN echo {number} > /step{number}\n" for number in range(11))
    (context / "Dockerfile").write_text(f"FROM busybox\n{steps}")
    ours = bench.imagetool("build", "-t", "steps", str(context))
    theirs = bench.buildah("bud", "--isolation", "chroot", "--layers", "-t", "steps", str(context))

    def anew(command: list[str]) -> Callable[[], Cost]:
        def once() -> Cost:
            _fresh(bench)
            return measured(command)

        return once

    # Steps of buildah's chroot isolation share the host's network; so do ours in the first row. By default
    # ours have a network of their own, where slirp4netns or pasta is installed: its helper starts once a build.
    shared = [*ours[:-1], "--network", "host", ours[-1]]
    for command, what, target in (
        (shared, "12 steps, 11 of them RUN, on busybox, on the host's network as theirs", 5),
        (ours, "12 steps, 11 of them RUN, on busybox, with a network of their own", 3),
    ):
        bench.compare(what, "buildah", ours=anew(command), theirs=anew(theirs), figure="wall", target=target, pairs=5)
    _fresh(bench)
    measured(ours)
    measured(theirs)
    for figure in ("wall", "cpu"):
        _compare(bench, "the same again, nothing changed", ours, theirs, figure=figure, target=1, pairs=9)


def _many_files(bench: Bench) -> None:
    """COPY of many small files FROM scratch into an OCI layout."""
    context = bench.folder / "files"
    draw = random.Random(1)

    def write(numbers: range) -> None:
        for number in numbers:
            path = context / f"tree/package{number // 40}/lib/file{number}.js"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(draw.randbytes(draw.randrange(200, 2000)) * 4)

    write(range(FILES))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY tree /tree\n")
    out = bench.folder / "out"

    def ours() -> Cost:
        bench.remove("ours", "out")
        return measured(bench.imagetool("build", "-o", f"type=oci,dest={out}", str(context)))

    def theirs() -> Cost:
        bench.remove("out")
        return measured(
            bench.buildah("bud", "--no-cache", "-t", "files", str(context)),
            bench.buildah("push", "files", f"oci:{out}:files"),
        )

    what = f"COPY of {FILES:,} small files FROM scratch to an OCI layout"
    bench.compare(what, "buildah", ours=ours, theirs=theirs, figure="cpu", target=5)
    write(range(FILES, FILES_AGAIN))
    again = bench.imagetool("build", "-t", "files", str(context))
    their_again = bench.buildah("bud", "--layers", "-t", "files", str(context))
    time.sleep(max(0.0, 2 - (time.time() - context.stat().st_mtime)))  # files younger than that are not trusted
    measured(again, their_again)
    _compare(bench, f"{FILES_AGAIN:,} small files again, nothing changed", again, their_again, target=15)
    times = iter(range(1000))

    def changed(command: list[str]) -> Callable[[], Cost]:
        def once() -> Cost:
            (context / "tree" / "changed.js").write_text(f"changed {next(times)}")
            return measured(command)

        return once

    what = f"{FILES_AGAIN:,} small files again, one changed"
    bench.compare(what, "buildah", ours=changed(again), theirs=changed(their_again), figure="cpu", target=5, pairs=2)
    bench.limit(f"{what}: memory", ours=changed(again), figure="rss", at_most=130, runs=1)
    bench.remove("files")


def _stages(bench: Bench) -> None:
    """Four stages that do not wait for each other, each of a second."""
    context = bench.folder / "stages"
    context.mkdir()
    stages = "".join(f"FROM busybox AS s{n}\nRUN sleep 1; echo {n} > /out{n}\n" for n in range(4))
    copies = "".join(f"COPY --from=s{n} /out{n} /\n" for n in range(4))
    (context / "Dockerfile").write_text(f"{stages}FROM scratch\n{copies}")
    _fresh(bench)
    ours = bench.imagetool("build", "--no-cache", "-t", "stages", str(context))
    theirs = bench.buildah("bud", "--isolation", "chroot", "--no-cache", "--jobs", "4", "-t", "stages", str(context))
    what = "4 stages of `sleep 1`"
    _compare(bench, what, ours, theirs, peer="buildah --jobs 4", target=1)
    bench.limit(what, ours=partial(measured, ours), figure="wall", at_most=2)


def _cached_steps(bench: Bench) -> None:
    """A build of ten steps, all in the cache, that is carried out all the same: nothing is known of it as a whole."""
    context = bench.folder / "cached"
    context.mkdir()
    steps = "".join(f"RUN echo {number} > /step{number}\n" for number in range(9))
    (context / "Dockerfile").write_text(f"FROM busybox\n{steps}")
    ours = bench.imagetool("build", "--explain-cache", "-t", "cached", str(context))
    theirs = bench.buildah("bud", "--isolation", "chroot", "--layers", "-t", "cached", str(context))
    _fresh(bench)
    measured(ours, theirs)
    what = "10 cached steps, the Dockerfile read and every step looked up"
    _compare(bench, what, ours, theirs, target=0.3, pairs=5)
    for figure, most in (("wall", 0.150), ("cpu", 0.110)):
        bench.limit(what, ours=partial(measured, ours), figure=figure, at_most=most, runs=9)
