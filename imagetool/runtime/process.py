"""The container's main process, from its fork to its execve: identity, privileges, directory, program.

Runs inside the container's root. What is the image's fault raises `ImageFault`; a program that
cannot be executed ends the process with 127 or 126 and a line on stderr, as a shell would.
"""

from __future__ import annotations

import binascii
import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import stat
import termios
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from imagetool.runtime import capabilities, syscalls
from imagetool.runtime.fakeids import fake_ids_filter
from imagetool.safefs.openat2 import open_in_root

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INTERPRETERS: Final = 5  # scripts run by scripts, as in the kernel
_SHEBANG_BYTES: Final = 256
#: What a container sees as the name and the command line of its first process.
_TITLE: Final = b"init"


class ImageFault(Exception):
    """What the image or the Dockerfile asks for cannot be done; the text is for the user."""


def start(process: dict[str, Any], streams: list[int], *, fake_ids: bool, filters: list[tuple[str, int]]) -> NoReturn:
    """Become the described process.

    Args:
        process: `process` of the OCI config.
        streams: see `connect`.
        fake_ids: there is one user id only; pretend that others can be taken on.
        filters: seccomp programs, in base64, each with its flags.
    """
    connect(streams, terminal=process.get("terminal", False))
    os.umask(process["user"].get("umask", 0o022))
    _enter(process["cwd"])
    _raise_limits(process.get("rlimits", ()))
    _become(process, fake_ids=fake_ids, filters=filters)
    environment = dict(entry.split("=", 1) for entry in process["env"] if "=" in entry)
    syscalls.close_range(3)
    _lower_limits(process.get("rlimits", ()))
    _execute(process["args"], environment)


def forget_arguments() -> None:
    """Overwrite this process's name and command line, which tell of paths of the host; the outer /proc is mounted."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    name = ctypes.create_string_buffer(_TITLE)
    syscalls.prctl(syscalls.PR_SET_NAME, ctypes.addressof(name))
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end of proc(5), counted from the state on
    if end - start > len(_TITLE):
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, _TITLE, len(_TITLE))


def connect(streams: list[int], *, terminal: bool) -> None:
    """Lead a new session with these descriptors as stdout, stderr and stdin; the last may be missing: /dev/null.

    With `terminal` they are one, and become the controlling terminal.
    """
    os.setsid()
    stdin = streams[2] if len(streams) > 2 else os.open("/dev/null", os.O_RDONLY)
    for source, target in ((stdin, 0), (streams[0], 1), (streams[1], 2)):
        os.dup2(source, target)
    if terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _enter(cwd: str) -> None:
    """Make `cwd` the working directory, never through a link of /proc (CVE-2024-21626)."""
    try:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        os.fchdir(open_in_root(root, os.fsencode(cwd), os.O_PATH | os.O_DIRECTORY))
        inside = os.getcwd().startswith("/")
    except OSError as error:
        raise ImageFault(f"the working directory {cwd!r} cannot be entered: {error.strerror}") from None
    if not inside:
        raise ImageFault(f"the working directory {cwd!r} is outside the container")


def _become(process: dict[str, Any], *, fake_ids: bool, filters: list[tuple[str, int]]) -> None:
    user = process["user"]
    keep = capabilities.mask(process.get("capabilities", {}).get("bounding", ()))
    capabilities.limit_bounding_set(keep)
    if not fake_ids:
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
        _set_ids(user["uid"], user["gid"], user.get("additionalGids", []))
    held = keep if user["uid"] == 0 or fake_ids else 0
    # A filter that may not allow much comes as late as possible: without no_new_privs it needs CAP_SYS_ADMIN.
    if process.get("noNewPrivileges"):
        capabilities.hold(held)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        _filter(filters, fake_ids=fake_ids)
    else:
        capabilities.raise_effective()
        _filter(filters, fake_ids=fake_ids)
        capabilities.hold(held)


def _filter(filters: list[tuple[str, int]], *, fake_ids: bool) -> None:
    for program, flags in filters:
        syscalls.install_seccomp_filter(binascii.a2b_base64(program), flags)
    if fake_ids and (pretending := fake_ids_filter()):
        syscalls.install_seccomp_filter(pretending)


def _limits(entry: dict[str, Any]) -> tuple[int, int, int]:
    """Return the number of a resource, its soft and its hard limit; -1 is unlimited."""
    soft, hard = (-1 if entry[key] >= (1 << 64) - 1 else entry[key] for key in ("soft", "hard"))
    return getattr(resource, entry["type"]), soft, hard


def _raise_limits(entries: Iterable[dict[str, Any]]) -> None:
    """Raise hard limits, where that is allowed; it will not be later."""
    for entry in entries:
        number, _, hard = _limits(entry)
        low, high = resource.getrlimit(number)
        if high != -1 and (hard == -1 or hard > high):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(number, (low, hard))


def _lower_limits(entries: Iterable[dict[str, Any]]) -> None:
    """Set limits, none above the hard limit that this process has."""
    for entry in entries:
        number, *wanted = _limits(entry)
        _, high = resource.getrlimit(number)
        soft, hard = (high if value == -1 else value if high == -1 else min(value, high) for value in wanted)
        resource.setrlimit(number, (soft, hard))


def _set_ids(uid: int, gid: int, groups: list[int]) -> None:
    try:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        numbers = ", ".join(map(str, (uid, gid, *groups)))
        raise ImageFault(
            f"the user namespace lacks one of the ids {numbers}: "
            "the user who builds needs more of them in /etc/subuid and /etc/subgid"
        ) from None


def _execute(args: list[str], environment: dict[str, str]) -> NoReturn:
    name = args[0]
    folders = environment.get("PATH", DEFAULT_PATH).split(":")
    problem = ""
    for path in [name] if "/" in name else [f"{_folder(folder)}/{name}" for folder in folders]:
        try:
            missing = _refuse_magic(path)
            if missing:
                _give_up(127, f"{path}: its interpreter {missing} is not in the image")
            os.execve(path, args, environment)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.exists(path):
                _give_up(127, f"{path}: its dynamic loader is not in the image")
        except OSError as error:
            problem = problem or f"{path}: {_explain(error)}"
    if problem:
        _give_up(126, problem)
    _give_up(127, f"{name}: not found in the image" + ("" if "/" in name else f", PATH={':'.join(folders)}"))


def _folder(entry: str) -> str:
    """Return an entry of PATH without its last slash; an empty one is the working directory."""
    return entry.rstrip("/") if entry else "."


def _refuse_magic(path: str) -> str:
    """Refuse a program, or a script's interpreter, that is a link into the kernel's /proc (CVE-2019-5736).

    Returns the interpreter that does not exist, if any. Raises OSError: ELOOP for such a link.
    """
    wanted = path
    for _ in range(_INTERPRETERS):
        root = os.open("/", os.O_PATH | os.O_DIRECTORY)
        full = os.path.join(os.getcwd(), wanted)
        try:
            os.close(open_in_root(root, os.fsencode(full), os.O_PATH))
            fd = open_in_root(root, os.fsencode(full), os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError:  # may be executed but not read
            return ""
        except FileNotFoundError:
            if wanted is path:
                raise
            return wanted
        finally:
            os.close(root)
        with open(fd, "rb", buffering=0) as file:
            head = file.read(_SHEBANG_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        words = head[2:].partition(b"\n")[0].split() if head.startswith(b"#!") else []
        if not words:
            return ""
        wanted = os.fsdecode(words[0])
    return ""


def _explain(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "links in circles or into /proc, and is not executed"
    if error.errno == errno.ENOEXEC:
        return "not a program of this machine's architecture, nor a script that begins with #!"
    return str(error.strerror)


def _give_up(status: int, text: str) -> NoReturn:
    os.write(2, f"imagetool: {text}\n".encode("utf-8", "backslashreplace"))
    os._exit(status)
