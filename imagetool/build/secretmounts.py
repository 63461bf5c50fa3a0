"""RUN --mount=type=secret and type=ssh: files in memory, and a socket before the user's SSH agent.

Source: Dockerfile reference, "RUN --mount=type=secret", "RUN --mount=type=ssh".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagetool.content.staging import storage_errors
from imagetool.dockerfile import RunMount
from imagetool.dockerfile.wording import did_you_mean
from imagetool.errors import BuildError, HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from imagetool.build.inputs import Inputs
    from imagetool.build.secrets import Secrets
    from imagetool.runtime.spec import Mount

_PREFIX: Final = "imagetool-secret-"
_ABANDONED_SECONDS: Final = 60.0
_PIECE: Final = 1 << 16


def secret_mounts(
    inputs: Inputs, mounts: tuple[RunMount, ...], environment: MutableMapping[str, str], stack: ExitStack
) -> Iterator[Mount]:
    """Yield the mounts for secrets and agents; set the variables that go with them.

    Raises UsageError for one that is required and was not given.
    """
    from imagetool.runtime.spec import Mount

    wanted = [mount for mount in mounts if mount.type in ("secret", "ssh")]
    given = [mount for mount in wanted if _is_given(inputs.secrets, mount)]
    if not given:
        return
    folder = stack.enter_context(_folder_in_memory())
    agents = 0
    for number, mount in enumerate(given):
        path = folder / str(number)
        if mount.type == "ssh":
            target = mount.target or f"/run/buildkit/ssh_agent.{agents}"
            agents += 1
            environment.setdefault("SSH_AUTH_SOCK", inputs.state.path(target))
            stack.enter_context(agent_socket(path, inputs.secrets.agents[_id(mount)]))
            _dress(path, mount, 0o600, single_id=inputs.worker.single_id)
        else:
            value = inputs.secrets.values[_id(mount)]
            if mount.env is not None:
                environment[mount.env or _id(mount)] = _text(value, mount)
                if mount.target is None:
                    continue
            target = mount.target or f"/run/secrets/{_id(mount)}"
            with storage_errors("cannot write a secret to memory"), open(path, "xb") as file:
                file.write(value)
            _dress(path, mount, 0o400, single_id=inputs.worker.single_id)
        yield Mount(inputs.state.path(target).rstrip("/"), "bind", str(path), ("bind", "ro"))


def _id(mount: RunMount) -> str:
    """Return which secret or agent is meant; a secret without an id is named as its target."""
    if mount.type == "ssh":
        return mount.id or "default"
    return mount.id or mount.source or (mount.target or "").rpartition("/")[2]


def _is_given(secrets: Secrets, mount: RunMount) -> bool:
    known: Mapping[str, object] = secrets.agents if mount.type == "ssh" else secrets.values
    if _id(mount) in known:
        return True
    if mount.required:
        hint = did_you_mean(_id(mount), list(known))
        how = "--ssh default" if mount.type == "ssh" else f"--secret id={_id(mount)},src=FILE"
        raise UsageError(f"RUN --mount={mount.text}: the build was given no {mount.type} {_id(mount)!r}{hint}: {how}")
    return False


def _text(value: bytes, mount: RunMount) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise BuildError(f"RUN --mount={mount.text}: the secret is not text, which a variable must be") from None
    if "\0" in text:
        raise BuildError(f"RUN --mount={mount.text}: the secret holds a NUL, which a variable cannot")
    return text


def _dress(path: Path, mount: RunMount, mode: int, *, single_id: bool) -> None:
    with storage_errors("cannot give a secret its owner"):
        os.chmod(path, mount.mode if mount.mode is not None else mode)
        if (mount.uid or mount.gid) and not single_id:  # with one id all is root's, and everybody is root
            os.chown(path, mount.uid or 0, mount.gid or 0)


@contextmanager
def _folder_in_memory() -> Iterator[Path]:
    """Yield a folder of our own on a tmpfs; what builds that were killed left there is removed."""
    place = _tmpfs()
    _sweep(place)
    with storage_errors(f"cannot keep a secret in {place}"):
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield Path(folder)
    finally:
        shutil.rmtree(folder)
        os.close(fd)


def _tmpfs() -> str:
    with open("/proc/self/mounts") as file:
        kinds = {words[1]: words[2] for line in file if len(words := line.split()) > 2}
    for place in ("/dev/shm", f"/run/user/{os.getuid()}", "/run"):
        if kinds.get(place) == "tmpfs" and os.access(place, os.W_OK | os.X_OK):
            return place
    raise HostError("secrets are not written to disk, and there is no tmpfs at /dev/shm or /run: mount one")


def _sweep(place: str) -> None:
    for name in os.listdir(place):
        path = os.path.join(place, name)
        if not name.startswith(_PREFIX):
            continue
        with contextlib.suppress(OSError):  # somebody else's, in use, or gone
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
            finally:
                os.close(fd)


@contextmanager
def agent_socket(path: Path, agent: Path) -> Iterator[None]:
    """Listen at `path` and hand every connection on to the agent: so the socket has an owner and mode of its own."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, agent), name="ssh-agent", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, agent: Path) -> None:
    while True:
        try:
            inside, _ = listener.accept()
        except OSError:  # the step is over
            return
        outside = socket.socket(socket.AF_UNIX)
        try:
            outside.connect(str(agent))
        except OSError:  # the agent has ended: so does the connection
            inside.close()
            outside.close()
            continue
        for source, target in ((inside, outside), (outside, inside)):
            threading.Thread(target=_pump, args=(source, target), name="ssh-agent", daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other direction has ended it
        while data := source.recv(_PIECE):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
