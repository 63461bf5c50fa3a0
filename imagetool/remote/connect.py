"""Where a registry is and how it is spoken to: host, scheme, certificates."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from imagetool.distribution.auth import is_loopback
from imagetool.errors import UsageError
from imagetool.oci.reference import DEFAULT_REGISTRY, check_registry
from imagetool.values import dataclass

_HUB: Final = "registry-1.docker.io"
_PROBE_SECONDS: Final = 2.0

#: Where distributions keep the roots that the administrator trusts, when OpenSSL does not say.
_SYSTEM_ROOTS: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


@dataclass(frozen=True, slots=True)
class Tls:
    """How the other end proves who it is, and how we do; all files are PEM.

    verify: False accepts any certificate, and plain HTTP where TLS does not answer.
    ca_file: trusted in place of the system's roots. authorities: trusted besides them.
    client: our certificate and its key, for the registry's own host and no other.
    """

    verify: bool = True
    ca_file: Path | None = None
    authorities: tuple[Path, ...] = ()
    client: tuple[Path, Path] | None = None

    def check(self) -> None:
        """Raise UsageError for a file that holds no certificate, or a key of another one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for path in self.authorities:
            try:
                context.load_verify_locations(cafile=path)
            except (OSError, ssl.SSLError) as error:
                raise UsageError(f"{path} cannot be read as a certificate: {error}") from None
        if self.client:
            try:
                context.load_cert_chain(*self.client)
            except (OSError, ssl.SSLError) as error:
                raise UsageError(f"{self.client[0]} and its key cannot be used: {error}") from None

    @property
    def roots(self) -> str | bool:
        """What requests takes as `verify`: a file or directory of roots, True for its own, or False."""
        if not self.verify:
            return False
        if self.ca_file is not None:
            return str(self.ca_file)
        known: Iterable[str | None] = (ssl.get_default_verify_paths().cafile, *_SYSTEM_ROOTS)
        return next((path for path in known if path and Path(path).is_file()), True)


def base_url(registry: str, tls: Tls) -> str:
    """Return the URL below which a registry's /v2/ is.

    https, always, except for a registry on loopback and under `verify=False`: there the port is
    tried with a TLS handshake, and plain http is spoken when it is not answered. No HTTP request
    is made. Raises InvalidReference for something that is no host.
    """
    host = host_of(registry)
    parts = urlsplit(f"//{host}")
    name = parts.hostname or host
    if tls.verify and not is_loopback(name):
        return f"https://{host}"
    return f"https://{host}" if _answers_tls(name, parts.port or 443) else f"http://{host}"


def host_of(registry: str) -> str:
    """Return the `host[:port]` that a registry's name stands for; raises InvalidReference for none."""
    check_registry(registry)
    return _HUB if registry == DEFAULT_REGISTRY else registry


def _answers_tls(host: str, port: int) -> bool:
    """Say whether a TLS server listens; whom it is, the real connection verifies."""
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    probe.check_hostname = False
    probe.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=_PROBE_SECONDS) as connection,
            probe.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):  # refused, reset, no TLS, or a name TLS cannot send: the request will tell
        return False
