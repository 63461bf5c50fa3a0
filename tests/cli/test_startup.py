"""The cost of starting: `--version` imports nothing heavy and takes next to no CPU."""

from __future__ import annotations

import resource
import subprocess
import sys


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['imagetool', '--version']; from imagetool.__main__ import main; main();"
        "print(*sorted({'requests', 'rich', 'cryptography', 'typer', 'granian', 'zstandard'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[1:] == [""], "imported: " + out


def test_version_costs_less_than_80_ms_of_cpu() -> None:
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "imagetool", "--version"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) <= 0.080
