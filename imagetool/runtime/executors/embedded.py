"""The default executor: namespaces and mounts by our own hand, nothing to install."""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from imagetool.errors import HostError
from imagetool.runtime.executors.limited import judged, launching, limited, refuse_hooks
from imagetool.runtime.executors.networks import Unconnected, Unmappable, Wanted
from imagetool.runtime.executors.protocol import ExitStatus, Output
from imagetool.runtime.namespaces import has_single_id, is_host_root
from imagetool.runtime.rootfs import Directory, Rootfs
from imagetool.runtime.seccomp.compiler import filter_of
from imagetool.runtime.spec import RuntimeSpec, build_step_spec, unmapped
from imagetool.runtime.users import User

if TYPE_CHECKING:
    from imagetool.runtime.network import Network
    from imagetool.runtime.sandbox import Sandbox
    from imagetool.runtime.session import Session

#: For seccomp(2); there is one thread, so nothing is to be synchronized.
_FLAGS: Final = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}


class EmbeddedExecutor:
    """Runs containers forked from a zygote, which it owns; a context manager.

    An overlay is mounted in the container's own mount namespace only: the host never sees it, and
    nothing is left to unmount however the builder ends. In a user namespace with one id only,
    changes of ownership are pretended; see `fakeids`.

    Args:
        chroot: enter the root by chroot(2); see `ChrootExecutor`.
        warn: told once what containers here lack: a user namespace, a /proc of their own.
    """

    def __init__(self, *, chroot: bool = False, warn: Callable[[str], None] = lambda _: None) -> None:
        self._chroot = chroot
        self._warn = warn

    def __enter__(self) -> EmbeddedExecutor:
        self._fake_ids = has_single_id()
        self._told: set[str] = set()
        self._registrations: list[str] = []
        self._maps = is_host_root() and not self._chroot
        self._ending = ExitStack()
        self._groups, self._launcher = self._ending.enter_context(launching(warn=self._tell_once))
        return self

    def __exit__(self, *problem: Any) -> None:
        self._ending.__exit__(*problem)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._warn(text)

    def stop(self) -> None:
        """End all containers; see `Executor`."""
        self._launcher.stop()

    def connect(self, network: Network, sandbox: Sandbox) -> str:
        """Try the helper of a network; see `Executor`."""
        if not network.helper:
            return ""
        spec = build_step_spec(
            args=("true",), env={}, cwd="/", user=User(), hostname="", network=network, sandbox=sandbox
        )
        if spec.may_be_unmapped and not self._maps:
            spec = unmapped(spec)
        try:
            with self._launcher.networks.lent(Wanted.of(spec.tree, spec.helper)):
                return ""
        except Unconnected as error:
            return error.reason
        except Unmappable:  # the container will tell
            return ""

    def emulate(self, registration: str, sandbox: Sandbox) -> bool:
        """Have containers register an interpreter; see `Executor`."""
        if not self._maps or sandbox.userns == "host":
            return False
        self._registrations.append(registration)
        return True

    def run(self, spec: RuntimeSpec, root: Rootfs, *, output: Output, session: Session | None = None) -> ExitStatus:
        """Run a container; see `Executor`. Raises Unsupported for hooks."""
        refuse_hooks(spec, "the embedded executor")
        if spec.may_be_unmapped:
            if not self._maps:
                return self._run(unmapped(spec), root, output, session)
            try:
                return self._run(spec, root, output, session)
            except Unmappable as error:
                self._maps = False
                self._tell_once(f"root of the steps is root of this machine, with few capabilities: {error}")
                return self._run(unmapped(spec), root, output, session)
        return self._run(spec, root, output, session)

    def _run(self, spec: RuntimeSpec, root: Rootfs, output: Output, session: Session | None) -> ExitStatus:
        # The overlay is mounted over its own upper directory, which needs no mount point of ours.
        target = root.path if isinstance(root, Directory) else root.upper
        request = {
            "spec": spec.tree,
            "target": os.path.abspath(target),
            "fake_ids": self._fake_ids,
            "chroot": self._chroot,
            "filters": _filters(spec),
            "helper": spec.helper,
            "registrations": self._registrations if "uidMappings" in spec.tree["linux"] else [],
        }
        with limited(self._groups, spec) as group:
            request["groups"] = () if group is None else group.folders
            return judged(
                self._launcher.launch(request, root, output, timeout=spec.timeout, session=session), spec, group
            )


def _filters(spec: RuntimeSpec) -> list[tuple[str, int]]:
    """Return the seccomp programs of a description, in base64, with their flags for seccomp(2)."""
    seccomp = spec.tree["linux"].get("seccomp")
    if seccomp is None:
        return []
    machine = os.uname().machine
    program = filter_of(seccomp, machine)
    if not program:
        raise HostError(
            f"no seccomp filter can be made for {machine}; --security-opt seccomp=unconfined runs without one"
        )
    return [
        (binascii.b2a_base64(program, newline=False).decode(), sum(_FLAGS[name] for name in seccomp.get("flags", ())))
    ]
