"""chroot(2) as an executor: the image's files and nothing more between a container and the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from imagetool.errors import HostError, Unsupported
from imagetool.runtime.executors.embedded import EmbeddedExecutor
from imagetool.runtime.executors.limited import without_user_namespace
from imagetool.runtime.executors.protocol import ExitStatus, Output, Unconnecting
from imagetool.runtime.namespaces import is_host_root
from imagetool.runtime.rootfs import Rootfs
from imagetool.runtime.spec import RuntimeSpec
from imagetool.values import replace

if TYPE_CHECKING:
    from imagetool.runtime.session import Session

WARNING: Final = (
    "chroot isolates little: the container shares the host's network, IPC and host name; use it for trusted images only"
)


class ChrootExecutor(Unconnecting):
    """Runs containers in a changed root; a context manager, for root only.

    Mounts are still made in a mount namespace, and processes counted in a PID namespace, so that
    nothing is left behind. Capabilities and the system call filter are as described.
    """

    def __init__(self) -> None:
        self.name = "chroot"

    def __enter__(self) -> ChrootExecutor:
        if not is_host_root():
            raise HostError("--isolation chroot needs root; without it there are embedded and bwrap")
        self._embedded = EmbeddedExecutor(chroot=True).__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._embedded.__exit__(*problem)

    def stop(self) -> None:
        """End all containers; see `Executor`."""
        self._embedded.stop()

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output, session: Session | None = None) -> ExitStatus:
        """Run a container; see `Executor`. Raises Unsupported when it must have a network of its own."""
        spec = without_user_namespace(spec, self.name)
        linux = spec.tree["linux"]
        if any(namespace["type"] == "network" for namespace in linux["namespaces"]):
            raise Unsupported("--isolation chroot shares the host's network; --network none is not there")
        reduced = {**linux, "namespaces": [{"type": "mount"}]}
        return self._embedded.run(
            replace(spec, tree={**spec.tree, "linux": reduced}), root, output=output, session=session
        )
