"""The default executor: namespaces and mounts by our own hand, nothing to install."""

from __future__ import annotations

import os
from types import TracebackType

from imagetool.runtime.executors.launcher import Launcher
from imagetool.runtime.executors.protocol import ExitStatus, Output
from imagetool.runtime.namespaces import has_single_id
from imagetool.runtime.rootfs import Directory, Rootfs
from imagetool.runtime.spec import RuntimeSpec


class EmbeddedExecutor:
    """Runs containers forked from a zygote, which it owns; a context manager.

    An overlay is mounted in the container's own mount namespace only: the host never sees it, and
    nothing is left to unmount however the builder ends. In a user namespace with one id only,
    changes of ownership are pretended; see `fakeids`.
    """

    def __enter__(self) -> EmbeddedExecutor:
        self._fake_ids = has_single_id()
        self._launcher = Launcher().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._launcher.__exit__(kind, error, trace)

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output) -> ExitStatus:
        """Run a container; see `Executor`."""
        # The overlay is mounted over its own upper directory, which needs no mount point of ours.
        target = root.path if isinstance(root, Directory) else root.upper
        request = {"spec": spec.tree, "target": os.path.abspath(target), "fake_ids": self._fake_ids}
        return self._launcher.launch(request, root, output)
