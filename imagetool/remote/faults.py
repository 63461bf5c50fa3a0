"""What can go wrong below HTTP, as one-line errors: the only place that knows what requests and urllib3 raise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import requests
import urllib3

from imagetool.distribution.headers import printable
from imagetool.errors import NetworkError


class ConnectionBroken(NetworkError):
    """The connection ended before the answer did, or was too slow; asking again may help."""


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn every error of requests and urllib3 into one NetworkError of one line, or ConnectionBroken."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise NetworkError(
            f"{where}: TLS failed: {_reason(error)};"
            " give the registry's CA certificate, or use --tls-verify=false if you trust the network"
        ) from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise ConnectionBroken(f"{where}: no answer in time") from error
    except requests.exceptions.ConnectionError as error:
        kind = NetworkError if _never_connected(error) else ConnectionBroken
        raise kind(f"{where}: {_reason(error)}") from error
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionBroken(f"{where}: {_reason(error)}") from error
    except requests.exceptions.RequestException as error:
        raise NetworkError(f"{where}: {_reason(error)}") from error
    except OSError as error:
        raise NetworkError(f"{where}: {printable(str(error))}") from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it wraps, outermost first."""
    seen: list[BaseException] = []
    found: object = error
    while isinstance(found, BaseException) and not any(found is other for other in seen):
        seen.append(found)
        yield found
        wrapped = [arg for arg in found.args if isinstance(arg, BaseException)]
        found = getattr(found, "reason", None) or (wrapped[-1] if wrapped else found.__cause__)


def _never_connected(error: BaseException) -> bool:
    return any(isinstance(link, urllib3.exceptions.NewConnectionError) for link in _chain(error))


def _reason(error: BaseException) -> str:
    """Say in a few words what lies at the bottom of an error."""
    links = list(_chain(error))
    system = next((link for link in reversed(links) if isinstance(link, OSError) and link.strerror), None)
    if isinstance(system, OSError):
        return printable(str(system.strerror), 200)
    return printable(str(links[-1]) or type(links[-1]).__name__, 200)
