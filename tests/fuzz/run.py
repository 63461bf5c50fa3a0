"""Fuzz a target from its corpus: `python -m tests.fuzz.run layer --seconds 600`.

With atheris (the `fuzz` extra) the search follows coverage; without it, or with --simple, inputs
of the corpus are mutated and spliced at random. An input that breaks the target is written to
the corpus directory as crash-DIGEST and the status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import TARGETS

CORPORA = Path(__file__).parents[2] / "fixtures" / "fuzz"


def corpus(name: str) -> list[bytes]:
    """Return a target's corpus, always in the same order."""
    return [path.read_bytes() for path in sorted((CORPORA / name).iterdir())]


def mutated(draw: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return a seed with a few random changes, of the kinds that have broken readers of archives."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(data) + 1)
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] = draw.randrange(256)
        elif kind == 1:
            data[at : at + draw.randrange(1, 64)] = draw.randbytes(draw.randrange(0, 64))
        elif kind == 2:
            del data[at:]
        elif kind == 3:  # another input's blocks in between
            other = draw.choice(seeds)
            start = draw.randrange(len(other) // 512 + 1) * 512
            data[at // 512 * 512 : at // 512 * 512] = other[start : start + 512 * draw.randrange(1, 5)]
        elif kind == 4:  # a block twice, or not at all
            start = at // 512 * 512
            data[start : start + 512] = data[start : start + 512] * draw.randrange(3)
        elif kind == 5 and len(data) >= 512:  # a number in a header's field
            start = at % (len(data) // 512) * 512
            field, size = draw.choice([(100, 8), (108, 8), (124, 12), (136, 12), (329, 8), (386, 12), (483, 12)])
            value = draw.choice([b"7" * (size - 1), b"\x80" + draw.randbytes(size - 1), b"\xff" * size, b"-1", b""])
            data[start + field : start + field + size] = value.ljust(size, b"\0")[:size]
        elif kind == 6 and len(data) >= 512:
            start = at % (len(data) // 512) * 512
            data[start + 156] = draw.choice(b"0123456789xgLKSVMDNA\0\xff")
    return bytes(data)


def simple(name: str, *, inputs: int | None, seconds: float, seed: int) -> bytes | None:
    """Run the corpus and mutations of it; return the first input that breaks the target."""
    target, draw = TARGETS[name], random.Random(seed)
    seeds = corpus(name)
    end = time.monotonic() + seconds
    done = 0
    while (inputs is None or done < inputs) and time.monotonic() < end:
        data = seeds[done] if done < len(seeds) else mutated(draw, seeds)
        done += 1
        try:
            target(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a find
            sys.stderr.write(f"input {done}: {error!r}\n")
            return data
    sys.stderr.write(f"{done} inputs of {name}, nothing found\n")
    return None


def guided(name: str, *, seconds: float, seed: int) -> None:
    """Let atheris search; it ends the process, with its own status."""
    import atheris

    target = TARGETS[name]
    atheris.instrument_all()
    arguments = [sys.argv[0], f"-max_total_time={int(seconds)}", "-max_len=65536", "-timeout=60", "-rss_limit_mb=1024"]
    arguments.append(f"-seed={seed + 1}")  # 0 stands for any
    with tempfile.TemporaryDirectory() as found:  # what reaches new code is kept there
        arguments += [f"-artifact_prefix={CORPORA / name}/", found, str(CORPORA / name)]
        atheris.Setup(arguments, target)
        atheris.Fuzz()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--simple", action="store_true", help="do not use atheris")
    options = parser.parse_args()
    if not options.simple:
        try:
            guided(options.target, seconds=options.seconds, seed=options.seed)
        except ImportError:
            sys.stderr.write("atheris is not installed: mutating at random; pip install 'imagetool[fuzz]' for more\n")
    broken = simple(options.target, inputs=None, seconds=options.seconds, seed=options.seed)
    if broken is None:
        return 0
    path = CORPORA / options.target / f"crash-{hashlib.sha256(broken).hexdigest()[:16]}"
    path.write_bytes(broken)
    sys.stderr.write(f"written to {path}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
