"""Start and end of an empty container: the embedded executor over an overlay, others over a plain directory."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.measure import Bench, Cost, measured, timed
from imagetool.runtime.executors.embedded import EmbeddedExecutor
from imagetool.runtime.network import HOST, Network, choose
from imagetool.runtime.rootfs import Overlay
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.spec import RuntimeSpec, build_step_spec
from imagetool.runtime.users import User

TITLE = "Containers"
NEEDS = ("runc", "crun", "buildah", "busybox")

_RUNS = 15
#: crun refuses a host with control groups of both versions, so it gets a mount namespace with one.
_ONE_VERSION = "umount /sys/fs/cgroup/unified 2>/dev/null; exec "
_numbers = itertools.count()


def run(bench: Bench) -> None:
    """Compare with runc and crun on the same description without a user namespace, and with buildah run."""
    lower = _rootfs(bench.folder / "lower")
    bundle = bench.folder / "bundle"
    shutil.copytree(lower, bundle / "rootfs", symlinks=True)
    tree: dict[str, Any] = json.loads(_spec("host").json())
    (bundle / "config.json").write_text(json.dumps(tree))
    with EmbeddedExecutor() as executor:
        ours = partial(_ours, bench, executor, lower)
        ours("auto")  # the helper process has started then
        for name, target in (("crun", 0.83), ("runc", 2.0)):
            _compare_runtime(bench, name, target, ours, bundle)
        measured(bench.buildah("from", "--name", "empty", "scratch"))
        measured(bench.buildah("copy", "empty", str(lower), "/"))
        own = choose(lambda network: executor.connect(network, Sandbox(userns="auto"))).network
        for what, network in (("empty RUN", HOST), ("empty RUN with a network of its own", own)):
            bench.compare(
                what,
                "buildah run",
                ours=partial(ours, "auto", network),
                theirs=lambda: measured(bench.buildah("run", "--isolation", "chroot", "empty", "/bin/true")),
                figure="wall",
                target=10,
                pairs=5,
            )


def _compare_runtime(bench: Bench, name: str, target: float, ours: Callable[[str], Cost], bundle: Path) -> None:
    for what, userns, least in (
        (f"empty container, as {name} has it", "host", target),
        (f"empty container, in a user namespace; {name} without", "auto", round(target / 1.5, 2)),
    ):
        bench.compare(
            what,
            name,
            ours=partial(ours, userns),
            theirs=partial(_theirs, name, bundle),
            figure="wall",
            target=least,
            pairs=5,
        )


def _ours(
    bench: Bench,
    executor: EmbeddedExecutor,
    lower: Path,
    userns: Literal["auto", "host"],
    network: Network = HOST,
) -> Cost:
    spec = _spec(userns, network)
    roots = [_overlay(bench.folder / f"run-{next(_numbers)}", lower) for _ in range(_RUNS)]

    def all_of_them() -> None:
        for root in roots:
            assert executor.run(spec, root, output=lambda *_: None).code == 0

    return _each(timed(all_of_them))


def _theirs(program: str, bundle: Path) -> Cost:
    base = f"b{next(_numbers)}"
    loop = f"for i in $(seq {_RUNS}); do {program} run -b {bundle} {base}-$i || exit 1; done"
    return _each(
        measured(["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{_ONE_VERSION}sh -c '{loop}'"])
    )


def _each(cost: Cost) -> Cost:
    return Cost(cost.wall / _RUNS, cost.cpu / _RUNS, cost.rss)


def _spec(userns: Literal["auto", "host"], network: Network = HOST) -> RuntimeSpec:
    return build_step_spec(
        args=["/bin/true"],
        env={"PATH": "/bin"},
        cwd="/",
        user=User(),
        hostname="box",
        network=network,
        sandbox=Sandbox(userns=userns),
    )


def _rootfs(folder: Path) -> Path:
    for name in ("bin", "dev", "proc", "sys", "etc", "tmp"):
        (folder / name).mkdir(parents=True)
    program = shutil.which("busybox")
    assert program is not None
    shutil.copy(program, folder / "bin/busybox")
    for name in ("true", "sh"):
        (folder / "bin" / name).symlink_to("busybox")
    return folder


def _overlay(folder: Path, lower: Path) -> Overlay:
    for name in ("upper", "work"):
        (folder / name).mkdir(parents=True)
    return Overlay((lower,), folder / "upper", folder / "work")
