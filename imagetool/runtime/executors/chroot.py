"""chroot(2) as an executor: the image's files and nothing more between a container and the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from imagetool.errors import HostError, Unsupported
from imagetool.runtime.executors.embedded import EmbeddedExecutor
from imagetool.runtime.executors.limited import without_helper, without_user_namespace
from imagetool.runtime.executors.protocol import ExitStatus, Output
from imagetool.runtime.namespaces import is_host_root
from imagetool.runtime.rootfs import Rootfs
from imagetool.runtime.spec import RuntimeSpec
from imagetool.values import replace

if TYPE_CHECKING:
    from imagetool.runtime.network import Network
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.runtime.session import Session

WARNING: Final = (
    "chroot isolates little: the container shares the host's network, IPC and host name; use it for trusted images only"
)


class ChrootExecutor:
    """Runs containers in a changed root; a context manager, for root only.

    Mounts are still made in a mount namespace, and processes counted in a PID namespace, so that
    nothing is left behind. Capabilities and the system call filter are as described.
    """

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

    def connect(self, network: Network, sandbox: Sandbox) -> str:
        """See `Executor`; it starts no helpers."""
        return without_helper("chroot")

    def emulate(self, registration: str, sandbox: Sandbox) -> bool:
        """See `Executor`; it makes no user namespaces."""
        return False

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output, session: Session | None = None) -> ExitStatus:
        """Run a container; see `Executor`. Raises Unsupported when it must have a network of its own."""
        spec = without_user_namespace(spec, "chroot")
        linux = spec.tree["linux"]
        if any(namespace["type"] == "network" for namespace in linux["namespaces"]):
            raise Unsupported("--isolation chroot shares the host's network; --network none is not there")
        reduced = {**linux, "namespaces": [{"type": "mount"}]}
        return self._embedded.run(
            replace(spec, tree={**spec.tree, "linux": reduced}), root, output=output, session=session
        )
