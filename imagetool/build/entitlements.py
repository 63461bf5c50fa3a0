"""What the user allows a build's steps beyond the usual; the Dockerfile, which others wrote, can only ask for it.

Source: docker buildx build, "--allow"; Dockerfile reference, "RUN --network", "RUN --security", "RUN --device".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from imagetool.dockerfile import Run
from imagetool.dockerfile.wording import did_you_mean
from imagetool.errors import DockerfileError, UsageError
from imagetool.values import dataclass

if TYPE_CHECKING:
    from imagetool.runtime.cdi import Device

_NAMES: Final = ("network.host", "security.insecure", "device")


@dataclass(frozen=True, slots=True)
class Entitlements:
    """What is allowed.

    network_host: steps may be on the host's network.
    insecure: steps may run without a sandbox.
    devices: names, or kinds, of devices that steps may use; "" is any.
    """

    network_host: bool = False
    insecure: bool = False
    devices: frozenset[str] = frozenset()

    def allows(self, device: Device) -> bool:
        """Say whether a step may use a device."""
        return device.allowed or not self.devices.isdisjoint({"", device.kind, device.qualified})


def parse_entitlements(texts: Sequence[str], *, network: str = "default") -> Entitlements:
    """Read what --allow was given: `network.host`, `security.insecure`, `device` or `device=NAME`.

    Args:
        network: what --network was given; `host` allows it to the steps that ask for it themselves, too.

    Raises UsageError for anything else.
    """
    wanted = [part for text in texts for part in text.split(",")]
    devices = set()
    for text in wanted:
        name, equals, value = text.partition("=")
        if name.startswith("fs"):
            raise UsageError(f"--allow {text[:80]!r}: builds reach no files of the host but what options name")
        if name not in _NAMES or (equals and (name != "device" or not value)):
            hint = did_you_mean(name, _NAMES) or f"; there are {', '.join(_NAMES)} and device=NAME"
            raise UsageError(f"--allow {text[:80]!r} is no entitlement{hint}")
        if name == "device":
            devices.add(value)
    return Entitlements(
        network_host="network.host" in wanted or network == "host",
        insecure="security.insecure" in wanted,
        devices=frozenset(devices),
    )


def check_entitled(instruction: Run, entitlements: Entitlements) -> None:
    """Refuse a step that asks for what is not allowed; raises DockerfileError without a place. Devices are not looked
    at: it is their specs that tell what they are.
    """
    if instruction.network == "host" and not entitlements.network_host:
        raise _refused("--network=host", "network.host")
    if instruction.security == "insecure" and not entitlements.insecure:
        raise _refused("--security=insecure", "security.insecure")


def check_device(device: Device, entitlements: Entitlements) -> None:
    """Refuse a device that is not allowed; raises DockerfileError without a place."""
    if not entitlements.allows(device):
        raise _refused(f"--device={device.qualified}", f"device={device.qualified}")


def _refused(flag: str, name: str) -> DockerfileError:
    return DockerfileError(
        f"RUN {flag} is not allowed",
        about=flag,
        hint=f"if the Dockerfile may have it, build with --allow {name}",
    )
