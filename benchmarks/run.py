"""Measure imagetool and Debian's buildah side by side, in alternating pairs on tmpfs; write RESULTS.md.

Root is needed: buildah's chroot isolation and the tmpfs ask for it.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PAIRS = 3
FILES = 20_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took, in seconds."""

    wall: float
    cpu: float


def measured(*commands: list[str]) -> Cost:
    """Run commands one after another; fail loudly when one fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


class Bench:
    """One working directory on tmpfs with both tools' stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[str] = []

    def imagetool(self, *args: str) -> list[str]:
        """Return an imagetool command on our store."""
        return [sys.executable, "-m", "imagetool", "--root", str(self.folder / "ours"), *args]

    def buildah(self, *args: str) -> list[str]:
        """Return a buildah command on its store."""
        storage = ["--root", str(self.folder / "theirs"), "--runroot", str(self.folder / "run")]
        return ["buildah", *storage, "--storage-driver", "overlay", *args]

    def compare(
        self, name: str, target: float, unit: str, ours: Callable[[], Cost], theirs: Callable[[], Cost]
    ) -> None:
        """Run both in turn and add a row; `unit` is the figure the target is about, wall or cpu."""
        pairs = [(ours(), theirs()) for _ in range(PAIRS)]
        mine, other = ([getattr(pair[at], unit) for pair in pairs] for at in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
        verdict = "yes" if ratio >= target else "NO"
        row = f"| {name} | {unit} | {statistics.median(mine):.2f} | {statistics.median(other):.2f} | {ratio:.1f}× | ≥ {target:g}× | {verdict} |"
        print(row, flush=True)
        self.rows.append(row)

    def fresh(self) -> None:
        """Empty both stores but for the busybox base."""
        for name in ("ours", "theirs", "out"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        measured(self.imagetool("base", "busybox"), self.imagetool("copy", "busybox", f"oci:{self.folder}/base:b"))
        measured(self.buildah("pull", f"oci:{self.folder}/base:b"))
        measured(self.buildah("tag", self._pulled(), "busybox"))

    def _pulled(self) -> str:
        listed = subprocess.run(self.buildah("images", "-q"), capture_output=True, text=True, check=True).stdout
        return listed.split()[0]


def run_steps(bench: Bench) -> None:
    """Ten RUN steps, then the same build again without a change."""
    context = bench.folder / "steps"
    context.mkdir()
    steps = "".join(f"RUN echo {number} > /step{number}\n" for number in range(10))
    (context / "Dockerfile").write_text(f"FROM busybox\n{steps}")
    ours = bench.imagetool("build", "-t", "steps", str(context))
    theirs = bench.buildah("bud", "--isolation", "chroot", "--layers", "-t", "steps", str(context))

    def anew(command: list[str]) -> Callable[[], Cost]:
        def once() -> Cost:
            bench.fresh()
            return measured(command)

        return once

    bench.compare("10 RUN steps on busybox", 3, "wall", anew(ours), anew(theirs))
    bench.fresh()
    measured(ours)
    measured(theirs)
    bench.compare("the same again, nothing changed", 1, "wall", lambda: measured(ours), lambda: measured(theirs))


def many_files(bench: Bench) -> None:
    """COPY of many small files FROM scratch into an OCI layout."""
    context = bench.folder / "files"
    draw = random.Random(1)
    for number in range(FILES):
        path = context / f"tree/package{number // 40}/lib/file{number}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.randbytes(draw.randrange(200, 2000)) * 4)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY tree /tree\n")
    out = bench.folder / "out"

    def ours() -> Cost:
        shutil.rmtree(bench.folder / "ours", ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
        return measured(bench.imagetool("build", "-o", f"type=oci,dest={out}", str(context)))

    def theirs() -> Cost:
        shutil.rmtree(out, ignore_errors=True)
        return measured(
            bench.buildah("bud", "--no-cache", "-t", "files", str(context)),
            bench.buildah("push", "files", f"oci:{out}:files"),
        )

    bench.compare(f"COPY of {FILES:,} small files FROM scratch to an OCI layout", 5, "cpu", ours, theirs)


def main() -> None:
    """Run everything and write the results beside this file."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", name])
        try:
            bench = Bench(folder)
            run_steps(bench)
            many_files(bench)
        finally:
            subprocess.run(["umount", "-R", "-l", name], check=False)
    version = subprocess.run(["buildah", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    heading = (
        f"# Results\n\nMedians of {PAIRS} alternating pairs on tmpfs, {os.cpu_count()} cores, {version}. Seconds; the ratio is theirs to ours,"
        " the median of the pairs. Made by `make bench`.\n\n"
        "| what | figure | imagetool | buildah | ratio | target | met |\n|---|---|---|---|---|---|---|\n"
    )
    Path(__file__).with_name("RESULTS.md").write_text(heading + "\n".join(bench.rows) + "\n")


if __name__ == "__main__":
    main()
