"""Programs that keep credentials: `docker-credential-NAME get|store|erase`.

A helper is a program of the user that a configuration file names; name and server are checked,
no shell is involved, and it has neither for ever nor endless output.

Source: docker-credential-helpers' protocol.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from typing import Final

from imagetool.distribution.auth import Credentials
from imagetool.distribution.headers import printable
from imagetool.errors import AuthError
from imagetool.limits import KIB
from imagetool.oci import document

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z", re.ASCII)
_OUTPUT_BYTES: Final = 64 * KIB
_SECONDS: Final = 10.0
_NOT_FOUND: Final = "credentials not found in native keychain"
_TOKEN_USER: Final = "<token>"  # noqa: S105 - the user name that marks an identity token


def get(name: str, server: str) -> Credentials | None:
    """Return what a helper has for a server, None for nothing; raises AuthError when it fails."""
    status, output = _run(name, "get", _line(server))
    if status != 0:
        said = output.decode("utf-8", "replace")
        if _NOT_FOUND in said:
            return None
        raise AuthError(f"docker-credential-{name} get {server}: failed: {printable(said) or f'status {status}'}")
    what = f"docker-credential-{name} get {server}"
    tree = document.decode(output, what=what)
    username = document.get(tree, "Username", str, "", path="$", what=what)
    secret = document.get(tree, "Secret", str, "", path="$", what=what)
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret) if username or secret else None


def store(name: str, server: str, credentials: Credentials) -> None:
    """Give a helper a user name and password to keep; raises AuthError when it fails."""
    tree = {"ServerURL": _line(server).decode(), "Username": credentials.username, "Secret": credentials.password}
    _check(name, "store", server, *_run(name, "store", document.encode(tree)))


def erase(name: str, server: str) -> None:
    """Let a helper forget a server; raises AuthError when it fails, not when there was nothing."""
    status, output = _run(name, "erase", _line(server))
    if _NOT_FOUND.encode() not in output:
        _check(name, "erase", server, status, output)


def _check(name: str, action: str, server: str, status: int, output: bytes) -> None:
    if status != 0:
        said = printable(output.decode("utf-8", "replace")) or f"status {status}"
        raise AuthError(f"docker-credential-{name} {action} {server}: failed: {said}")


def _line(server: str) -> bytes:
    """Return a server as a helper's input; one with a line break could smuggle in another."""
    if not server.isprintable() or len(server) > 1024:
        raise AuthError(f"not a server name for a credential helper: {server[:80]!r}")
    return server.encode()


def _run(name: str, action: str, given: bytes) -> tuple[int, bytes]:
    if not _NAME.match(name):
        raise AuthError(f"not the name of a credential helper: {name[:80]!r}")
    program = shutil.which(f"docker-credential-{name}")
    if program is None:
        raise AuthError(
            f"docker-credential-{name} is not installed, but a configuration file says that it keeps the credentials"
        )
    try:
        process = subprocess.Popen(
            [program, action],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise AuthError(f"cannot run {program}: {error.strerror}") from error
    with process:
        try:
            output = _exchange(process, given, f"docker-credential-{name} {action}")
            return process.wait(_SECONDS), output
        except subprocess.TimeoutExpired:
            raise AuthError(f"docker-credential-{name} {action}: does not end") from None
        finally:
            _end(process)


def _exchange(process: subprocess.Popen[bytes], given: bytes, what: str) -> bytes:
    """Write the input and return the output, both within their limits."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it may not want to read
        pipe.write(given)
    deadline = time.monotonic() + _SECONDS
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(process.stdout.fileno(), _OUTPUT_BYTES)
            if not piece:
                return output
            output += piece
            if len(output) > _OUTPUT_BYTES:
                raise AuthError(f"{what}: more than {_OUTPUT_BYTES} bytes of output")
    raise AuthError(f"{what}: no answer within {_SECONDS:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a helper that is still there, and what it started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.killpg(process.pid, signal.SIGKILL)
