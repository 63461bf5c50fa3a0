"""The measuring that all benchmarks share: alternating pairs, medians, on tmpfs.

To add a benchmark, write `benchmarks/NAME.py` (one word or words with `_`) with

    TITLE = "Layers"                           # heading of its part of RESULTS.md
    NEEDS = ("umoci",)                         # programs it runs; told and skipped when one is missing
    SPACE = "16g"                              # of the tmpfs; 4g when it is not said

    def run(bench: Bench) -> None:             # measures and reports; bench.folder is an empty tmpfs
        bench.compare(
            "unpack 50 MB in 7,000 files", "umoci",
            ours=lambda: measured(bench.imagetool("copy", …)),
            theirs=lambda: measured(["umoci", …]),
            figure="cpu", target=3,            # theirs / ours must be at least 3
        )

`make bench` runs all of them, `python benchmarks/run.py NAME…` some; only the parts of RESULTS.md
of what ran are replaced. A callable may prepare what it likes and returns the `Cost` of the part
that counts, so clean up before `measured(…)`, not inside. Figures are wall and cpu in seconds and
rss in MB (the largest process); a busy machine disturbs cpu least. `bench.limit` holds our own cost
against a number where there is no peer.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Figure = Literal["wall", "cpu", "rss"]
PAIRS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took: wall and CPU time in seconds, the largest process in MB."""

    wall: float
    cpu: float
    rss: float = 0.0

    def of(self, figure: Figure) -> float:
        """Return one of the figures."""
        return {"wall": self.wall, "cpu": self.cpu, "rss": self.rss}[figure]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: medians of both sides, the median of the pairs' ratios, what was aimed at."""

    what: str
    figure: Figure
    ours: float
    peer: str
    theirs: float | None
    ratio: float
    target: float

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return self.ratio >= self.target

    def __str__(self) -> str:
        unit, digits = ("MB", 0) if self.figure == "rss" else ("s", 3)
        theirs = "" if self.theirs is None else f"{self.theirs:.{digits}f} {unit}"
        ours = f"{self.ours:.{digits}f} {unit}"
        verdict = "yes" if self.met else "NO"
        return (
            f"| {self.what} | {self.figure} | {ours} | {self.peer} | {theirs} | "
            f"{self.ratio:.1f}× | ≥ {self.target:g}× | {verdict} |"
        )


TABLE = "| what | figure | imagetool | peer | theirs | ratio | target | met |\n|---|---|---|---|---|---|---|---|"


def measured(*commands: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> Cost:
    """Run commands one after another and return their cost together; one that fails ends the program.

    CPU time and memory are those of the commands and of the children that they waited for.
    """
    wall = cpu = rss = 0.0
    for command in commands:
        with tempfile.TemporaryFile() as said:
            started = time.perf_counter()
            process = subprocess.Popen(command, stdout=said, stderr=said, cwd=cwd, env=env)
            _, status, usage = os.wait4(process.pid, 0)
            wall += time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said.seek(0)
                raise SystemExit(f"{' '.join(command)}\n{said.read().decode(errors='replace')}")
        cpu += usage.ru_utime + usage.ru_stime
        rss = max(rss, usage.ru_maxrss / 1000)
    return Cost(wall, cpu, rss)


def timed(action: Callable[[], object]) -> Cost:
    """Return what a call took in this process, its threads included; no memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def version_of(program: str) -> str:
    """Return a program's first line about its version."""
    for option in ("--version", "version"):
        done = subprocess.run([program, option], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip().splitlines()[0]
    return program


@contextmanager
def tmpfs(size: str = "4g") -> Iterator[Path]:
    """Yield an empty directory in memory, gone afterwards with all that was mounted below it. Needs root."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "-R", "-l", name], check=False)


@dataclass(slots=True)
class Bench:
    """One benchmark's working directory, which is empty at first, and its rows."""

    folder: Path
    rows: list[Row] = field(default_factory=list)

    def imagetool(self, *args: str) -> list[str]:
        """Return an imagetool command on a store below the folder."""
        return [sys.executable, "-m", "imagetool", "--root", str(self.folder / "ours"), *args]

    def buildah(self, *args: str) -> list[str]:
        """Return a buildah command on a store below the folder."""
        storage = ["--root", str(self.folder / "theirs"), "--runroot", str(self.folder / "run")]
        return ["buildah", *storage, "--storage-driver", "overlay", *args]

    def compare(
        self,
        what: str,
        peer: str,
        *,
        ours: Callable[[], Cost],
        theirs: Callable[[], Cost],
        figure: Figure,
        target: float,
        pairs: int = PAIRS,
    ) -> Row:
        """Run both in turn; add and return the row. The ratio is theirs to ours: more is better for us."""
        costs = [(ours().of(figure), theirs().of(figure)) for _ in range(pairs)]
        ratio = statistics.median(their / our for our, their in costs)
        mine, other = (statistics.median(pair[at] for pair in costs) for at in (0, 1))
        return self._add(Row(what, figure, mine, peer, other, ratio, target))

    def limit(self, what: str, *, ours: Callable[[], Cost], figure: Figure, at_most: float, runs: int = PAIRS) -> Row:
        """Run ours alone; add and return the row, whose ratio is the limit to our cost."""
        mine = statistics.median(ours().of(figure) for _ in range(runs))
        return self._add(Row(what, figure, mine, f"limit {at_most:g}", None, at_most / mine, 1))

    def remove(self, *names: str) -> None:
        """Remove files and directories below the folder, whether they are there or not."""
        for name in names:
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _add(self, row: Row) -> Row:
        print(row, flush=True)
        self.rows.append(row)
        return row
