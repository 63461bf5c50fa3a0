"""A container's terminal: made in the container, by its init; the builder gets its master.

Source: pts(4); ioctl_tty(2); runtime-spec v1.2 config-linux.md "Default Devices".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from typing import Any, Final

from imagetool.runtime import syscalls

_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTPEER: Final = 0x5441


def make_terminal(channel: socket.socket, request: dict[str, Any]) -> int:
    """Make a pseudoterminal, in the container's own devpts where it has one; send its master to the builder.

    Returns the other end. It is opened through the master: no path of the container is followed.
    """
    hosted_there = "program" in request
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = os.open("/dev/ptmx" if hosted_there else "/dev/pts/ptmx", flags)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
    rows, columns = request["size"]
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    if not hosted_there:
        with contextlib.suppress(OSError):  # a single id: it is ours already
            os.fchown(slave, request["spec"]["process"]["user"]["uid"], -1)
        _bind_console(slave)
    socket.send_fds(channel, [b'{"terminal": true}\n'], [master])
    os.close(master)
    return int(slave)


def _bind_console(terminal: int) -> None:
    """Show the terminal as /dev/console too, as other runtimes do; neither end is looked up by a path of its own."""
    dev = os.open("/dev", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with contextlib.suppress(FileExistsError):  # the image's own /dev, or a mount of the caller's
        os.close(os.open("console", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=dev))
    target = os.open("console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev)
    mount = syscalls.clone_mount(b"", dir_fd=terminal, recursive=False)
    syscalls.attach_mount(mount, target)
    for fd in (dev, target, mount):
        os.close(fd)
