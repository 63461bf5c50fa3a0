"""Which network a container has: the host's, none, or one of its own that a helper program connects.

A helper carries the container's connections from user space, so that nothing of the host's own is
reachable: not what listens on its loopback interface, not its abstract unix sockets (CVE-2020-15257).
How one is started and ended: see `connection`.

Source: slirp4netns(1), pasta(1), network_namespaces(7).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from imagetool.errors import HostError
from imagetool.runtime.connection import NAMESPACE, READY
from imagetool.values import dataclass

if TYPE_CHECKING:
    from imagetool.runtime.sandbox import Sandbox

TUNNEL: Final = Path("/dev/net/tun")
Asked = Literal["default", "host", "none"]
Fallback = Literal["host", "refuse"]

#: What slirp4netns answers questions for names at; it hands them to the name server of the host.
_SLIRP_SERVER: Final = "10.0.2.3"
_SLIRP: Final = (
    "--configure",
    "--mtu=65520",
    "--disable-host-loopback",
    "--netns-type=path",
    f"--ready-fd={READY}",
)
#: Options that versions before 0.4 or builds without libseccomp lack.
_SLIRP_CONFINED: Final = ("--enable-sandbox", "--enable-seccomp")
#: Nothing is forwarded in either direction, and the gateway's address is not the host's loopback. It drops what
#: root has itself; another user could not enter the namespace. Its first words are a terminal's, not a service's.
_PASTA: Final = (
    "--foreground --quiet --config-net --no-map-gw -t none -u none -T none -U none "
    f"--netns-only --no-netns-quit --runas 0 --pid /proc/self/fd/{READY} --netns"
).split()


@dataclass(frozen=True, slots=True)
class Network:
    """The network of containers.

    own: they have a network namespace each.
    helper: the command that connects it; empty for a loopback interface only. See `connection.keep`.
    server: the address that the helper answers questions for names at; "" for none.
    """

    own: bool
    helper: tuple[str, ...] = ()
    server: str = ""


HOST: Final = Network(own=False)
NONE: Final = Network(own=True)


class Connector(Protocol):
    """What of an executor tells which networks its containers can have."""

    def connect(self, network: Network, sandbox: Sandbox) -> str:
        """Try a network; see `executors.protocol.Executor`."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """What `default` is here; `lacking` says, as the end of a sentence, why it is the host's network."""

    network: Network
    lacking: str = ""


def choose(connect: Callable[[Network], str] = lambda _: "") -> Choice:
    """Look for a helper that works here: slirp4netns, which starts sooner and names servers, else pasta.

    Args:
        connect: tries a network; returns why it is none, as the end of a sentence, or "".
    """
    found = list(helpers())
    if not found:
        return Choice(HOST, "neither slirp4netns nor pasta is installed")
    if not os.access(TUNNEL, os.R_OK | os.W_OK, effective_ids=True):
        return Choice(HOST, f"{TUNNEL} cannot be opened, which {found[0][0]} needs")
    lacking = ""
    for name, program in found:
        try:
            network = _by_slirp(program) if name == "slirp4netns" else _by_pasta(program)
            problem = connect(network)
        except _DoesNotStart as error:
            problem = str(error)
        if not problem:
            return Choice(network)
        lacking = lacking or problem
    return Choice(HOST, lacking)


def helpers() -> Iterator[tuple[str, str]]:
    """Yield the name and the path of each helper that is installed, the preferred one first."""
    for name in ("slirp4netns", "pasta"):
        if program := shutil.which(name):
            yield name, os.path.abspath(program)


class _DoesNotStart(Exception):
    """The helper is no program that works; the text is the end of a sentence."""


def _by_slirp(program: str) -> Network:
    return Network(own=True, helper=(program, *_slirp_options(program)), server=_SLIRP_SERVER)


def _slirp_options(program: str) -> Iterator[str]:
    yield from _SLIRP
    try:
        done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _DoesNotStart(f"{program} does not start: {error}") from None
    yield from (option for option in _SLIRP_CONFINED if option in done.stdout)
    yield from (NAMESPACE, "tap0")


def _by_pasta(program: str) -> Network:
    return Network(own=True, helper=(program, *_PASTA, NAMESPACE))


def network_of(asked: Asked, executor: Connector, sandbox: Sandbox, *, fallback: Fallback) -> tuple[Network, str]:
    """Return the network that --network asks for, and a warning where it is not what a user may think; "" for none.

    What `default` is, is found out by trying, once: a helper that is installed may not work here.

    Args:
        executor: runs the containers.
        sandbox: of these containers.
        fallback: what `default` is where no helper works: the host's network, or HostError.
    """
    if asked != "default":
        return (NONE if asked == "none" else HOST), ""
    lacking = executor.connect(NONE, sandbox)
    choice = Choice(HOST, lacking) if lacking else choose(lambda network: executor.connect(network, sandbox))
    if choice.network.own:
        return choice.network, ""
    if fallback == "refuse":
        raise HostError(
            f"containers get no network of their own: {choice.lacking}, and IMAGETOOL_NETWORK_FALLBACK=refuse "
            "forbids the host's; --network host allows it, --network none does without"
        )
    return HOST, (
        f"containers use the host's network and reach what listens on its loopback interface: {choice.lacking}; "
        "--network host says that this is meant"
    )
