"""Root filesystems and descriptions made at random: a container runs or there is one clear line, and the host stays.

IMAGETOOL_FUZZ says how many; the default takes half a minute on a machine with little else to do. `make fuzz`
makes 10,000 of each kind.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from imagetool.errors import ImagetoolError, UsageError
from imagetool.runtime.ceilings import Ceilings
from imagetool.runtime.executors import Executor
from imagetool.runtime.network import HOST, NONE
from imagetool.runtime.rootfs import Directory, Rootfs
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.security import DEFAULT_CAPABILITIES, Security
from imagetool.runtime.spec import Mount, build_step_spec
from imagetool.runtime.users import User
from tests.support.containers import VARIANTS, busybox_root, overlay, tree

pytestmark = pytest.mark.root

RUNS = int(os.environ.get("IMAGETOOL_FUZZ", "500"))
PLACES = (
    *("dev", "proc", "sys", "etc", "tmp", "run", "a", "a/b"),
    *("etc/hosts", "etc/resolv.conf", "etc/passwd", "dev/null", "dev/pts", "dev/shm", "proc/self", "sys/fs"),
)
TEXTS = (
    *("", "/", ".", "..", "a", "x" * 300, "ü", "\udcff", "\n", "\0", "-", "%s", "$PATH"),
    *("/proc/self/fd/3", "/dev/null"),
)


def grow(folder: Path, canary: Path, choose: random.Random) -> None:
    """Put anything at all where a container expects its own."""
    makers: tuple[Callable[[Path], Any], ...] = (
        lambda path: path.mkdir(),
        lambda path: path.write_text("x"),
        lambda path: os.mkfifo(path),
        lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3)),
        lambda path: path.symlink_to(canary),
        lambda path: path.symlink_to(canary / "file"),
        lambda path: path.symlink_to("../" * choose.randint(1, 12) + str(canary)[1:]),
        lambda path: path.symlink_to(choose.choice(PLACES)),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/proc/self/root" + str(canary)),
    )
    for place in choose.sample(PLACES, choose.choice((0, 0, 1, 1, 2, 3, 5, len(PLACES)))):
        path = folder / place
        try:
            if path.parent.resolve().is_relative_to(folder.resolve()):
                choose.choice(makers)(path)
        except (OSError, RuntimeError):  # below a file, or a link that leads in circles
            continue


def description(choose: random.Random, source: Path) -> dict[str, Any]:
    def text() -> str:
        return choose.choice(TEXTS) if choose.random() < 0.5 else "/" + "/".join(choose.sample(PLACES, 2))

    mounts = []
    for _ in range(choose.choice((0, 0, 0, 1, 3))):
        kind = choose.choice(("bind", "tmpfs", "proc", "sysfs", "nosuch", "mqueue"))
        options = ["bind"] if kind == "bind" else []
        mounts.append(
            Mount(f"/{text()}", kind, str(source), (*options, *choose.sample(("ro", "nosuid", "noexec", "size=1m"), 1)))
        )
    given: dict[str, Any] = {
        "args": [choose.choice((*["true", "/bin/true"] * 5, "nosuch", "/dev/null", "/proc/self/exe", text())), text()],
        "env": {"PATH": choose.choice((*["/bin"] * 9, "", ":", text())), "A": choose.choice(("x", text()))},
        "cwd": choose.choice((*["/"] * 6, "/tmp", text())),
        "user": User(
            choose.choice((0, 0, 0, 1, 65534, 1 << 24, 0xFFFFFFFE)), choose.choice((0, 5)), (7,) * choose.randint(0, 2)
        ),
        "hostname": choose.choice((*["box"] * 8, "x" * 64, "x" * 65, text())),
        "mounts": mounts,
        "network": choose.choice((HOST, NONE)),
        "readonly": choose.random() < 0.2,
        "sandbox": Sandbox(
            Security(
                tuple(choose.sample(DEFAULT_CAPABILITIES, choose.randint(0, 11))),
                no_new_privileges=choose.random() < 0.5,
            ),
            Ceilings(timeout=20),
        ),
    }
    return given


def once(executor: Executor, root: Rootfs, describe: Callable[[], dict[str, Any]]) -> str:
    try:
        return str(executor.run(build_step_spec(**describe()), root, output=lambda *_: None).code)
    except ImagetoolError as error:
        kind, said = type(error).__name__, str(error)
    assert said
    assert "\n" not in said
    return kind


@pytest.mark.timeout(120 + RUNS // 2)
@pytest.mark.parametrize("kind", ["embedded", "mapped"])
def test_any_root_and_any_description_give_a_container_or_one_clear_line(kind: str, tmp_path: Path) -> None:
    canary, source = tmp_path / "canary", tmp_path / "source"
    for folder in (canary, source):
        folder.mkdir()
        (folder / "file").write_text("canary")
    before = tree(canary)
    outcomes: dict[str, int] = {}
    seeds = random.Random(os.environ.get("IMAGETOOL_SEED", "1"))
    with VARIANTS[kind]() as executor:
        for _ in range(RUNS):
            seed = seeds.getrandbits(64)
            choose = random.Random(seed)
            lower = busybox_root(tmp_path / "root")
            grow(lower, canary, choose)
            root: Rootfs = Directory(lower) if choose.random() < 0.3 else overlay(tmp_path / "run", lower)
            try:
                outcome = once(executor, root, partial(description, choose, source))
                assert tree(canary) == before, "the canary was changed"
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            for folder in (lower, tmp_path / "run"):
                shutil.rmtree(folder, ignore_errors=True)
    assert outcomes.get("0", 0) > RUNS // 50, outcomes
    assert len(outcomes) > 3, outcomes


def test_any_text_is_a_description_or_a_usage_error() -> None:
    choose = random.Random(5)
    made = 0
    for _ in range(3000):
        try:
            build_step_spec(**description(choose, Path("/tmp")))
        except UsageError:
            continue
        made += 1
    assert 300 < made < 3000
