"""A container's two processes of ours: one outside that watches, and its init, PID 1 of its namespaces.

    builder ──control── watcher ── init ── main process (`process`) …

The watcher kills the init when the builder closes or half-closes the control socket; the
kernel ends each with the one above it (PR_SET_PDEATHSIG), and everything in the PID namespace
with the init. Bytes that come on the control socket are numbers of signals for the main process.
The init reaps orphans and reports on the control socket, one JSON object a line:

    {"warning": text}           what the user should know
    {"gained": […]}             before the main process starts; see `mountpoints.remove`
    {"code": n, "signal": n, "usage": [seconds, bytes, bytes]}    how the main process ended; see `protocol.Usage`
    {"terminal": true}          with the master of the container's terminal, when it was asked for
    {"problem": text, "image": bool}    the container could not be made, and whether that is the image's fault;
                                    with "unmappable" when it could be made without a user namespace
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
from typing import Any, Final, NoReturn

from imagetool.runtime import hosted, mapped, syscalls
from imagetool.runtime.fakeids import keep_apt_root
from imagetool.runtime.mountpoints import Maker
from imagetool.runtime.mounts import (
    as_mountable,
    attach_root,
    initial_user_namespace,
    make_readonly,
    mask,
    mount_listed,
)
from imagetool.runtime.process import ImageFault, forget_arguments, start
from imagetool.runtime.terminal import make_terminal
from imagetool.safefs.openat2 import open_in_root

#: What the image's own files can cause when a mount point is looked up or made.
_IMAGE_ERRORS: Final = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EBUSY, errno.ENAMETOOLONG, errno.ENOENT)

#: Signals of the caller that the container's main process gets.
PASSED_ON: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def watch(zygote: int, control: int, streams: list[int]) -> NoReturn:
    """Make one container, wait for its end; run in a fresh child of the zygote."""
    _die_with_parent()
    if os.getppid() != zygote:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    channel = socket.socket(fileno=control)
    received = receive(channel)
    if received is None:
        os._exit(1)
    request, descriptors, signals = received
    given = dict(zip(request.get("given", ()), descriptors, strict=True))
    try:
        # Opened by who we are now, for after we have become somebody else.
        groups = [os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in request["groups"]]
        mounts = _allowed_mounts(request["spec"])
        _give_output(request["spec"], streams[:2])
        outside = _enter_user_namespace(request, mounts, given.get("user")) if _is_mapped(request["spec"]) else None
        if os.getppid() != zygote:
            os._exit(1)
        syscalls.unshare(syscalls.CLONE["pid"])
    except mapped.Refused as error:
        _report(channel, problem=str(error), image=False, unmappable=True)
        os._exit(1)
    except OSError as error:
        _report(channel, problem=f"cannot make the container: {_describe(error)}", image=False)
        os._exit(1)
    alive, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        _die_with_parent()
        os.close(held)
        _end_if_orphan(alive)
        _init(channel, request, streams, groups, mounts, outside, given.get("network"))
    for fd in (alive, *streams):
        os.close(fd)
    _wait(channel, pid, signals)
    os._exit(0)


def _die_with_parent() -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_if_orphan(alive: int) -> None:
    """End when the parent was gone before it could be followed; its number says nothing in a PID namespace."""
    poller = select.poll()
    poller.register(alive, 0)
    if poller.poll(0):
        os._exit(1)
    os.close(alive)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int], bytes] | None:
    """Read the request, one line, the descriptors that came with it, and what came after it.

    Returns None when the builder went away.
    """
    line = bytearray()
    descriptors: list[int] = []
    while b"\n" not in line:
        part, sent, _, _ = socket.recv_fds(channel, 1 << 20, 2)
        if not part:
            return None
        line += part
        descriptors += sent
    request, _, rest = bytes(line).partition(b"\n")
    return json.loads(request), descriptors, rest


def _wait(channel: socket.socket, pid: int, early: bytes) -> None:
    child = os.pidfd_open(pid)
    for number in early:
        signal.pidfd_send_signal(child, signal.Signals(number))
    poller = select.poll()
    poller.register(child, select.POLLIN)
    poller.register(channel, select.POLLIN | select.POLLRDHUP)
    while child not in (ready := [fd for fd, _ in poller.poll()]):
        if channel.fileno() in ready:
            numbers = channel.recv(64)
            for number in numbers:
                signal.pidfd_send_signal(child, signal.Signals(number))
            if not numbers:  # the builder is gone or wants the end
                signal.pidfd_send_signal(child, signal.SIGKILL)
                poller.unregister(channel)
    os.waitpid(pid, 0)


def _report(channel: socket.socket, **message: Any) -> None:
    try:
        channel.sendall(json.dumps(message).encode() + b"\n")
    except BrokenPipeError:
        os._exit(1)


def _is_mapped(spec: dict[str, Any]) -> bool:
    return any(namespace["type"] == "user" for namespace in spec["linux"]["namespaces"])


def _give_output(spec: dict[str, Any], output: list[int]) -> None:
    """Give the pipes of its output to the container's user, who may want to open them by /dev/stdout."""
    user = spec["process"]["user"]["uid"]
    rows = spec["linux"].get("uidMappings", [{"containerID": 0, "hostID": 0, "size": 1 << 32}])
    owner = next((row["hostID"] + user - row["containerID"] for row in rows if 0 <= user < row["size"]), 0)
    for fd in output:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            with contextlib.suppress(OSError):  # a user namespace may lack the id; the process says so then
                os.fchown(fd, owner, -1)


def _allowed_mounts(spec: dict[str, Any]) -> list[dict[str, Any]]:
    own_network = any(namespace["type"] == "network" for namespace in spec["linux"]["namespaces"])
    return [as_mountable(mount, own_network=own_network, mapped=_is_mapped(spec)) for mount in spec["mounts"]]


def _enter_user_namespace(request: dict[str, Any], mounts: list[dict[str, Any]], given: int | None) -> mapped.Outside:
    """Open what only the host's root can, then become root of the container's user namespace."""
    namespace = mapped.make_user_namespace(request["spec"]["linux"]) if given is None else given
    outside = mapped.open_outside(request, namespace, mounts)
    mapped.enter(namespace)
    _die_with_parent()  # the kernel forgets it with a change of the user
    return outside


def _init(
    channel: socket.socket,
    request: dict[str, Any],
    streams: list[int],
    groups: list[int],
    mounts: list[dict[str, Any]],
    outside: mapped.Outside | None,
    network: int | None,
) -> NoReturn:
    """Be PID 1: build the container, start its main process, reap, report.

    This process stays outside its container's group: one that is short of memory kills its largest process.
    """
    try:
        forget_arguments()
        if "program" in request:
            gained, request["program"] = hosted.prepare(request)
        else:
            gained = _build(channel, request, mounts, outside, network)
        _report(channel, gained=gained)
        # Nothing in the container may look into this process: it is the host's interpreter.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if request["spec"]["process"].get("terminal"):
            streams = [make_terminal(channel, request)] * 3
        pid = os.fork()
        if pid == 0:
            _main(channel, request, streams, groups)
        _let_go(channel.fileno())
        _pass_signals_on(pid)
        while (ended := os.wait())[0] != pid:
            pass
        code = os.waitstatus_to_exitcode(ended[1])
        _report(channel, code=max(code, 0), signal=max(-code, 0), usage=_end_all())
    except hosted.ProgramMissing as error:
        os.write(streams[1], f"imagetool: {error}\n".encode("utf-8", "backslashreplace"))
        _report(channel, code=error.status, signal=0, usage=(0.0, 0, 0))
    except ImageFault as error:
        _report(channel, problem=str(error), image=True)
    except OSError as error:
        _report(channel, problem=f"cannot make the container: {_describe(error)}", image=False)
    finally:
        os._exit(0)


def _pass_signals_on(pid: int) -> None:
    """Hand the signals that the watcher sends on to the main process; PID 1 gets none without a handler."""

    def hand_on(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in PASSED_ON:
        signal.signal(number, hand_on)


def _end_all() -> tuple[float, int, int]:
    """Kill what is left in the PID namespace; return what all have used."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, usage.ru_oublock << 9


def _main(channel: socket.socket, request: dict[str, Any], streams: list[int], groups: list[int]) -> NoReturn:
    try:
        for group in groups:
            os.write(group, b"0")
        if "program" in request:
            hosted.execute(request["program"], streams, process=request["spec"]["process"], bundle=request["bundle"])
        if any(namespace["type"] == "cgroup" for namespace in request["spec"]["linux"]["namespaces"]):
            syscalls.unshare(syscalls.CLONE["cgroup"])  # its own groups are the topmost that it sees
        start(request["spec"]["process"], streams, fake_ids=request["fake_ids"], filters=request["filters"])
    except ImageFault as error:
        _report(channel, problem=str(error), image=True)
    except OSError as error:
        _report(channel, problem=f"cannot start the container's process: {_describe(error)}", image=False)
    finally:
        os._exit(125)


def _let_go(keep: int) -> None:
    """Keep no descriptor but one: the pipes must end with the container's own processes."""
    null = os.open("/dev/null", os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    syscalls.close_range(3, keep - 1)
    syscalls.close_range(keep + 1)


def _describe(error: OSError) -> str:
    name = os.fsdecode(error.filename or "")
    text = f"{name}: {error.strerror}" if name else str(error.strerror)
    return text if text.isprintable() else repr(text)


def _build(
    channel: socket.socket,
    request: dict[str, Any],
    mounts: list[dict[str, Any]],
    outside: mapped.Outside | None,
    network: int | None,
) -> list[list[Any]]:
    """Put the container's root in place and enter it; return what its directory of changes gained by that."""
    spec = request["spec"]
    linux = spec["linux"]
    kinds = {namespace["type"] for namespace in linux["namespaces"]}
    # Here and not in the watcher: so all mounts are gone when the init is, and that is what it waits for.
    if network is not None:
        syscalls.setns(network, syscalls.CLONE["network"])
        kinds -= {"network"}
    syscalls.unshare(sum(syscalls.CLONE[kind] for kind in kinds - {"pid", "user", "cgroup"}))
    syscalls.make_mounts_private()
    if outside is None:
        root, changes = attach_root(request["root"], request["target"])
    else:
        root, changes = outside.root, outside.changes
        target = os.open(mapped.TARGET, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        syscalls.attach_mount(root, target)
        os.close(target)
    maker = Maker(root, changes)
    for position, mount in enumerate(mounts):
        warning = _mount(maker, mount, None if outside is None else outside.binds.get(position))
        if warning:
            _report(channel, warning=warning)
    if request["fake_ids"]:
        keep_apt_root(root, spec)
    if registrations := request.get("registrations"):
        _register_interpreters(root, registrations)
    for path in linux.get("readonlyPaths", ()):
        make_readonly(root, path)
    for path in linux.get("maskedPaths", ()):
        mask(root, path)
    if spec["root"].get("readonly"):
        syscalls.set_mount_attributes(root, syscalls.MOUNT_ATTR["ro"], recursive=False)
    gained = maker.gained()
    _enter_root(root, by_chroot=request.get("chroot", False))
    os.close(root)
    os.close(changes)
    if "uts" in kinds and spec.get("hostname"):
        _set_hostname(channel, spec["hostname"])
    if "network" in kinds:
        loopback_up()
    return gained


def _enter_root(root: int, *, by_chroot: bool) -> None:
    """Make a mount the root: by pivot_root, or by chroot after it was moved over the old one.

    The second way is also for where the first is forbidden: docker's filter does not allow it even with CAP_SYS_ADMIN,
    and the kernel does not where / is the initial memory disk. From below a moved mount no `..` leads out.
    """
    os.fchdir(root)
    if not by_chroot:
        try:
            syscalls.pivot_root(b".", b".")
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
        else:
            syscalls.detach_mount(b".")
            os.chdir("/")
            return
    slash = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.attach_mount(root, slash)
    os.close(slash)
    os.chroot(".")
    os.chdir("/")


def _set_hostname(channel: socket.socket, name: str) -> None:
    try:
        socket.sethostname(name)
    except PermissionError:  # podman's filter asks the outer container for the capability, not this namespace
        if initial_user_namespace():
            raise
        _report(channel, warning=f"the outer container's filter forbids host names: steps are on {os.uname().nodename}")


def _register_interpreters(root: int, lines: list[str]) -> None:
    """Register them in this user namespace; they live as long as the mount, so that is left where it belongs."""
    mount = syscalls.new_mount("binfmt_misc", [], 0)
    for line in lines:
        register = os.open("register", os.O_WRONLY | os.O_CLOEXEC, dir_fd=mount)
        with contextlib.suppress(FileExistsError):  # by the container before, in the same namespace
            os.write(register, line.encode())
        os.close(register)
    place = open_in_root(root, b"proc/sys/fs/binfmt_misc", os.O_PATH | os.O_DIRECTORY)
    syscalls.attach_mount(mount, place)
    os.close(place)
    os.close(mount)


def _mount(maker: Maker, mount: dict[str, Any], source: int | None) -> str:
    try:
        return mount_listed(maker, mount, source)
    except OSError as error:
        place = mount["destination"] if mount["destination"].isprintable() else repr(mount["destination"])
        text = f"cannot mount {place} in the container: {_describe(error)}"
        if error.errno in _IMAGE_ERRORS:
            raise ImageFault(text) from None
        raise OSError(error.errno, error.strerror, f"mount of {place}: {error.filename}") from None


def loopback_up() -> None:
    """Start the loopback interface of this process's network namespace. Raises OSError."""
    set_flags, up = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, set_flags, struct.pack("16sH14x", b"lo", up))
