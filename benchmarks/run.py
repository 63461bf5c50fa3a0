"""Measure imagetool and its peers side by side; write the results to RESULTS.md.

Without a name all benchmarks run, with names only these, and only their parts of RESULTS.md are
replaced. Root is needed for the tmpfs and for what some peers do. `benchmarks/measure.py` says how
to add one. The status is 1 when a target was missed.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import platform
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.measure import TABLE, Bench, tmpfs, usable_cores, version_of  # noqa: E402

HEADING = """# Results

Medians of alternating pairs on tmpfs; the ratio is theirs to ours, the median of the pairs' ratios.
imagetool runs from compiled modules, as when it is installed. Made by `make bench`; `python benchmarks/run.py NAME…` renews parts.
"""


def main() -> int:
    """Run benchmarks and write the results beside this file."""
    known = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("__init__", "measure", "run"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"one of: {', '.join(known)}")
    names = parser.parse_args().name or known
    if wrong := sorted(set(names) - set(known)):
        parser.error(f"there is no benchmark {wrong[0]!r}; there are {', '.join(known)}")
    for package in ("imagetool", "registry_server"):  # as an installation does; the environment may forbid it to us
        compileall.compile_dir(HERE.parent / package, quiet=1)
    results = HERE / "RESULTS.md"
    missed = False
    for name in names:
        module = importlib.import_module(f"benchmarks.{name}")
        if missing := [program for program in module.NEEDS if not shutil.which(program)]:
            print(f"{name}: skipped, {', '.join(missing)} not installed", flush=True)
            continue
        with tmpfs(getattr(module, "SPACE", "4g")) as folder:
            bench = Bench(folder)
            module.run(bench)
        missed |= not all(row.met for row in bench.rows)
        peers = "".join(f", {version_of(program)}" for program in module.NEEDS)
        text = "\n".join([f"{usable_cores()} cores, {interpreter()}{peers}.", "", TABLE, *map(str, bench.rows)])
        write_part(results, name, module.TITLE, text)
    return int(missed)


def interpreter() -> str:
    """Return which Python runs imagetool here: one that somebody built without its optimisations costs some per cent."""
    return f"Python {platform.python_version()}{' of the distribution' if sys.base_prefix == '/usr' else ''}"


def write_part(results: Path, name: str, title: str, text: str) -> None:
    """Replace one benchmark's part of the results, or add it at the end."""
    part = f"<!-- {name} -->\n## {title}\n{text}\n"
    old = results.read_text() if results.exists() else ""
    parts = re.findall(r"^<!-- (\w+) -->\n(.*?)(?=^<!-- |\Z)", old, re.MULTILINE | re.DOTALL)
    kept = {known: f"<!-- {known} -->\n{body.rstrip()}\n" for known, body in parts}
    kept[name] = part
    results.write_text(HEADING + "".join(f"\n{kept[known]}" for known in sorted(kept)))


if __name__ == "__main__":
    sys.exit(main())
