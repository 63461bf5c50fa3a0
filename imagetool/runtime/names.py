"""The names of the network as a container sees them: /etc/hosts and /etc/resolv.conf; pure text.

Source: hosts(5), resolv.conf(5); the options of docker run.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from imagetool.errors import UsageError
from imagetool.values import dataclass

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?")
_KEPT: Final = ("nameserver", "search", "domain", "options")


@dataclass(frozen=True, slots=True)
class Names:
    """Extra lines of /etc/hosts, as (name, address), and name servers instead of the host's."""

    hosts: tuple[tuple[str, str], ...] = ()
    servers: tuple[str, ...] = ()

    def hosts_text(self, hostname: str) -> str:
        """Return /etc/hosts."""
        extra = "".join(f"{address}\t{name}\n" for name, address in self.hosts)
        return f"127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost\n{extra}"

    def resolv_conf_text(self, host: str, *, own_network: bool, server: str = "") -> str:
        """Return /etc/resolv.conf.

        Args:
            host: the host's; lines that resolvers do not know are dropped.
            own_network: the container cannot reach name servers of the host's loopback interface.
            server: answers in the place of the host's name servers; "" for none.
        """
        servers = self.servers or ((server,) if server else ())
        lines = []
        for line in host.splitlines():
            words = line.split()
            if not words or words[0] not in _KEPT:
                continue
            if words[0] == "nameserver" and (servers or (own_network and _is_loopback(words[1:]))):
                continue
            lines.append(line.strip())
        return "".join(f"{line}\n" for line in (*(f"nameserver {server}" for server in servers), *lines))


def _is_loopback(words: list[str]) -> bool:
    try:
        return bool(words) and ipaddress.ip_address(words[0].partition("%")[0]).is_loopback
    except ValueError:  # a resolver would not take it either
        return False


def parse_names(add_host: Iterable[str], dns: Iterable[str]) -> Names:
    """Return what --add-host NAME:ADDRESS (or NAME=ADDRESS) and --dns ADDRESS ask for. Raises UsageError."""
    hosts = []
    for text in add_host:
        name, _, address = text.replace("=", ":", 1).partition(":")
        if len(name) > 253 or not _HOST.fullmatch(name):
            raise UsageError(f"--add-host {text[:80]!r}: write NAME:ADDRESS")
        hosts.append((name, _address("--add-host", address.strip("[]"))))
    return Names(tuple(hosts), tuple(_address("--dns", text) for text in dns))


def _address(option: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(f"{option} {text[:80]!r} is not an IP address") from None
