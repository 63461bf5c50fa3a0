"""`login` and `logout`: credentials in the files that docker, podman and skopeo share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from imagetool.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagetool.cli.commands import Globals

_PASSWORD_BYTES = 64 * 1024


def login(globals: Globals, *, registry: str, username: str | None, password: str | None, password_stdin: bool) -> None:
    """Ask a registry whether it takes a user name and password, and keep them."""
    from imagetool import api
    from imagetool.cli.options import plain_workplace
    from imagetool.progress import silent

    if password is not None and password_stdin:
        raise UsageError("--password and --password-stdin exclude each other")
    if password_stdin and not username:
        raise UsageError("--password-stdin needs --username: stdin is taken by the password")
    if username is None:
        username = _ask("Username: ")
    if password_stdin:
        password = sys.stdin.buffer.read(_PASSWORD_BYTES + 1).decode("utf-8", "surrogateescape").rstrip("\r\n")
    elif password is None:
        password = _ask("Password: ", hidden=True)
    else:
        sys.stderr.write("warning: --password shows in the list of processes; use --password-stdin\n")
    if not password or len(password) > _PASSWORD_BYTES:
        raise UsageError("the password is empty" if not password else "the password is too long")
    place = api.login(_host(registry), username, password, plain_workplace(globals, silent))
    sys.stderr.write(f"logged in to {_host(registry)}; kept in {place}\n")


def logout(globals: Globals, *, registry: str) -> None:
    """Forget what is kept for a registry."""
    from imagetool.config import credentials

    authfile = Path(globals.authfile) if globals.authfile else None
    if credentials.logout(_host(registry), authfile=authfile):
        sys.stderr.write(f"logged out of {_host(registry)}\n")
    else:
        sys.stderr.write(f"not logged in to {_host(registry)}\n")


def _host(registry: str) -> str:
    """Return the registry's host: https:// and a path may be written, as for docker."""
    return registry.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _ask(prompt: str, *, hidden: bool = False) -> str:
    if not sys.stdin.isatty() or not os.isatty(2):
        raise UsageError("there is no terminal to ask on; give --username and --password-stdin")
    from getpass import getpass

    if hidden:
        return getpass(prompt)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return sys.stdin.readline().strip()
