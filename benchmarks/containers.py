"""Start and end of an empty container: the embedded executor over an overlay, others over a plain directory."""

from __future__ import annotations

import itertools
import json
import shutil
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


def run(bench: Bench) -> None:
    """Compare with runc and crun on the same description without a user namespace, and with buildah run."""
    lower = _rootfs(bench.folder / "lower")
    bundle = bench.folder / "bundle"
    shutil.copytree(lower, bundle / "rootfs", symlinks=True)
    tree: dict[str, Any] = json.loads(_spec("host").json())
    (bundle / "config.json").write_text(json.dumps(tree))
    numbers = itertools.count()
    with EmbeddedExecutor() as executor:

        def ours(userns: Literal["auto", "host"], network: Network = HOST) -> Cost:
            spec = _spec(userns, network)
            roots = [_overlay(bench.folder / f"run-{next(numbers)}", lower) for _ in range(_RUNS)]

            def all_of_them() -> None:
                for root in roots:
                    assert executor.run(spec, root, output=lambda *_: None).code == 0

            return _each(timed(all_of_them))

        ours("auto")  # the helper process has started then

        def peer(program: str) -> Cost:
            base = f"b{next(numbers)}"
            loop = f"for i in $(seq {_RUNS}); do {program} run -b {bundle} {base}-$i || exit 1; done"
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{_ONE_VERSION}sh -c '{loop}'"]
            return _each(measured(command))

        for name, target in (("crun", 0.83), ("runc", 2.0)):
            bench.compare(
                f"empty container, as {name} has it",
                name,
                ours=lambda: ours("host"),
                theirs=lambda name=name: peer(name),  # type: ignore[misc]
                figure="wall",
                target=target,
                pairs=5,
            )
            bench.compare(
                f"empty container, in a user namespace; {name} without",
                name,
                ours=lambda: ours("auto"),
                theirs=lambda name=name: peer(name),  # type: ignore[misc]
                figure="wall",
                target=round(target / 1.5, 2),
                pairs=5,
            )
        measured(bench.buildah("from", "--name", "empty", "scratch"))
        measured(bench.buildah("copy", "empty", str(lower), "/"))
        own = choose(lambda network: executor.connect(network, Sandbox(userns="auto"))).network
        for what, network in (("empty RUN", HOST), ("empty RUN with a network of its own", own)):
            bench.compare(
                what,
                "buildah run",
                ours=lambda network=network: ours("auto", network),  # type: ignore[misc]
                theirs=lambda: measured(bench.buildah("run", "--isolation", "chroot", "empty", "/bin/true")),
                figure="wall",
                target=10,
                pairs=5,
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
