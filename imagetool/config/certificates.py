"""Certificates that the administrator or the user keeps for single registries.

Source: containers-certs.d(5); Docker's "Verify repository client with certificates".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from imagetool.errors import StorageError, UsageError
from imagetool.oci.reference import check_registry
from imagetool.remote.connect import Tls


def tls_for(registry: str, *, verify: bool = True, environment: Mapping[str, str] = os.environ) -> Tls:
    """Return how a registry proves who it is, and how we do: from the first directory there is for it.

    In `certs.d/HOST[:PORT]`, every `*.crt` is an authority that is trusted besides the system's,
    and `NAME.cert` with `NAME.key` is the certificate we show. Raises UsageError for one without
    the other, StorageError for a directory that cannot be read.
    """
    check_registry(registry)
    for folder in _folders(environment):
        place = folder / registry
        try:
            names = sorted(os.listdir(place))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StorageError(f"cannot read the certificates in {place}: {error.strerror}") from error
        authorities = tuple(place / name for name in names if name.endswith(".crt"))
        return Tls(verify=verify, authorities=authorities, client=_client(place, names))
    return Tls(verify=verify)


def _folders(environment: Mapping[str, str]) -> Iterator[Path]:
    home = environment.get("HOME")
    if home:
        yield Path(home) / ".config/containers/certs.d"
    yield Path("/etc/containers/certs.d")
    yield Path("/etc/docker/certs.d")


def _client(place: Path, names: list[str]) -> tuple[Path, Path] | None:
    """Return the first certificate and key of our own."""
    stems = {name.rpartition(".")[0] for name in names if name.endswith((".cert", ".key"))}
    for stem in sorted(stems):
        for missing, there in ((".key", ".cert"), (".cert", ".key")):
            if stem + missing not in names:
                raise UsageError(f"{place / (stem + there)} has no {stem}{missing} beside it")
        return place / f"{stem}.cert", place / f"{stem}.key"
    return None
