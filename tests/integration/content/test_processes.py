"""Processes that write, tag, untag and collect in one layout at once, and one that is killed now and then."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.image.verify import verify

#: argv: folder, seed, rounds. Prints what it has been promised, a line for each, as soon as it is.
WORKER = """
import json, random, sys
from pathlib import Path
from imagetool.content.layout import LayoutStore
from imagetool.image.verify import verify
from tests.integration.content.faultstores import image_of
store, me, chance = LayoutStore.create(Path(sys.argv[1])), sys.argv[2], random.Random(sys.argv[2])
mine = {}
for number in range(int(sys.argv[3])):
    act = chance.choice(["write", "write", "shared", "untag", "collect"])
    if act in ("write", "shared"):
        name = f"{me}-{number}" if act == "write" else f"shared-{number % 3}"
        with store.session():
            root = image_of(store, name)
            store.tag(root, f"{me}-{number}")
        print(json.dumps(["tag", f"{me}-{number}", str(root.digest)]), flush=True)
        mine[f"{me}-{number}"] = root
    elif act == "untag" and mine:
        name = chance.choice(sorted(mine))
        print(json.dumps(["gone", name, ""]), flush=True)
        store.untag(name)
        del mine[name]
    elif act == "collect":
        store.collect()
    for root in mine.values():
        problems = [check.problem for check in verify(store, root) if check.problem]
        assert not problems, problems
"""


def start(folder: Path, seed: str, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), seed, str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def promised(output: str) -> tuple[dict[str, str], set[str]]:
    """Return the names that must be there with their digests, and those that may be gone."""
    tags: dict[str, str] = {}
    gone = set()
    for line in output.splitlines():
        kind, name, digest = json.loads(line)
        if kind == "tag":
            tags[name] = digest
        else:
            gone.add(name)
    return tags, gone


@pytest.mark.parametrize("kill", [False, True], ids=["all end", "some are killed"])
def test_nothing_that_was_promised_to_anybody_is_lost(kill: bool, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    LayoutStore.create(folder)
    workers = [start(folder, f"worker{number}", 25) for number in range(4)]
    if kill:
        chance = random.Random(4)
        for worker in workers[:2]:
            time.sleep(chance.uniform(0.4, 0.9))
            worker.send_signal(signal.SIGKILL)
    results = [worker.communicate(timeout=100) for worker in workers]
    for worker, (_, errors) in list(zip(workers, results, strict=True))[2 if kill else 0 :]:
        assert worker.returncode == 0, errors
    store = LayoutStore.create(folder)
    names = store.names()
    for output, _ in results:
        tags, gone = promised(output)
        for name, digest in tags.items():
            if name not in gone:
                assert str(names[name].digest) == digest
    for root in names.values():
        assert [check.problem for check in verify(store, root) if check.problem] == []
    store.collect()
    reachable = {check.descriptor.digest.hex for root in names.values() for check in verify(store, root)}
    assert {path.name for path in (folder / "blobs/sha256").iterdir()} == reachable
    assert not (folder / ".staging").exists()
