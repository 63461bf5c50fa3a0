"""`doctor`: what this host offers for containers and registries, what will be used, how to get what is missing."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from glob import escape, glob
from pathlib import Path
from typing import Any, Final, Literal

from imagetool.errors import HostError, ImagetoolError
from imagetool.image.image import this_platform
from imagetool.runtime import syscalls
from imagetool.runtime.capabilities import holds
from imagetool.runtime.cgroups import GroupTree
from imagetool.runtime.emulation import emulators, has_instances
from imagetool.runtime.executors import EmbeddedExecutor
from imagetool.runtime.mapped import Refused, make_user_namespace
from imagetool.runtime.namespaces import is_host_root, subordinate_ids
from imagetool.runtime.network import TUNNEL, Choice, choose, helpers
from imagetool.runtime.probe import can_run_containers
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.seccomp.compiler import filter_of
from imagetool.runtime.security import Security
from imagetool.values import dataclass

State = Literal["ok", "limited", "missing"]
_GIB: Final = 1 << 30
_HELPER_FIX: Final = "apt-get install slirp4netns"
_LITTLE_SPACE: Final = 5 * _GIB
_SANE_TIME: Final = 1_735_689_600  # 2025-01-01: before it, every certificate of today is not yet valid
#: Other programs that make containers: name, package, the word for --isolation.
_RUNTIMES: Final = (
    ("runc", "runc", "oci"),
    ("crun", "crun", "oci"),
    ("bwrap", "bubblewrap", "bwrap"),
    ("systemd-nspawn", "systemd-container", "nspawn"),
    ("lxc-execute", "lxc", "lxc"),
)
#: Filesystems whose files can be shown with other owners, since which Linux.
_MAPPABLE: Final = {
    "ext4": (5, 12),
    "xfs": (5, 12),
    "vfat": (5, 12),
    "btrfs": (5, 15),
    "f2fs": (5, 18),
    "erofs": (5, 19),
    "tmpfs": (6, 3),
    "squashfs": (6, 2),
}
#: Option, what a container must then be given, by which controller it is done.
_LIMITS: Final[dict[str, dict[str, Any]]] = {
    "--memory": {"memory": {"limit": 1 << 30, "swap": 1 << 30}},
    "--cpus": {"cpu": {"quota": 100_000, "period": 100_000}},
    "--pids-limit": {"pids": {"limit": 100}},
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    state: "missing" when builds with RUN, or the local store, cannot work without it; "limited" when
    only what `detail` names is not there. fix: a command or setting, "" when nothing is to be done.
    """

    name: str
    state: State
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and what will be used."""

    findings: tuple[Finding, ...]
    used: dict[str, str]

    @property
    def healthy(self) -> bool:
        """Whether nothing that is needed is missing."""
        return all(finding.state != "missing" for finding in self.findings)

    def tree(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"healthy": self.healthy, "used": self.used, "findings": [asdict(one) for one in self.findings]}


def diagnose(root: Path) -> Diagnosis:
    """Look at everything, without changing anything that stays.

    Args:
        root: where the local store is or would be.
    """
    network = _connected()
    looks: Sequence[Callable[[], Iterator[Finding]]] = (
        _system,
        _containers,
        _ids,
        lambda: _storage(root),
        _limits,
        _seccomp,
        _programs,
        lambda: _network(network),
        _emulation,
        _clock,
        _certificates,
    )
    findings = tuple(finding for look in looks for finding in look())
    by_name = {finding.name: finding for finding in findings}
    working = by_name["containers"].state == "ok"
    used = {
        "isolation": "embedded" if working else "none: RUN cannot work",
        "user": _identity(by_name),
        "storage": f"overlay in {root / 'snapshots'}" if working else "unpacked layers are not needed",
        "network": _network_used(network),
    }
    return Diagnosis(findings, used)


def _identity(found: dict[str, Finding]) -> str:
    if not is_host_root():
        return found["ids"].detail
    mapped = "idmap" in found and found["idmap"].state == "ok"  # without a store it was not looked at
    return "root, who in containers is nobody of this host" if mapped else "root"


def _system() -> Iterator[Finding]:
    release = os.uname().release
    python = ".".join(map(str, sys.version_info[:3]))
    where = ", in a container" if _in_container() else ""
    detail = f"Linux {release} on {os.uname().machine}{where}; Python {python}"
    if syscalls.kernel() < (5, 12):
        yield Finding("system", "missing", detail, "RUN needs Linux 5.12 or newer")
    else:
        yield Finding("system", "ok", detail)


def _in_container() -> bool:
    return any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv")) or "container" in os.environ


def _containers() -> Iterator[Finding]:
    problem = can_run_containers()
    if problem is None:
        yield Finding("containers", "ok", "namespaces, mounts and overlay work: RUN and run do")
    else:
        reason, _, fix = str(problem).partition("; ")
        yield Finding("containers", "missing", reason, fix or "run as root, or let users make user namespaces")


def _ids() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("ids", "ok", "root")
        return
    name, uid = _user_name(), os.geteuid()
    tools = [tool for tool in ("newuidmap", "newgidmap") if not shutil.which(tool)]
    ranges = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            ranges.append(subordinate_ids(Path(path).read_text(), name, uid))
        except OSError:  # no such file: no ranges
            ranges.append(())
    if all(ranges) and not tools:
        total = min(sum(one.count for one in kind) for kind in ranges)
        yield Finding("ids", "ok", f"{total} subordinate ids of {name}")
        return
    fix = f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
    if tools:
        fix = "as root: apt-get install uidmap" + ("" if all(ranges) else f"; {fix.removeprefix('as root: ')}")
    yield Finding("ids", "limited", "no subordinate ids: all files of an image belong to one user", fix)


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _storage(root: Path) -> Iterator[Finding]:
    place = root
    while not place.exists():
        place = place.parent
    kind = _filesystem(place)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        fix = "choose another place: --root DIR or IMAGETOOL_ROOT=DIR"
        yield Finding("storage", "missing", f"{root} cannot be written: {error.strerror}", fix)
        return
    status = os.statvfs(place)
    free, files = status.f_bavail * status.f_frsize, status.f_favail
    detail = f"{root} on {kind}, {free / _GIB:.1f} GiB free"
    little = free < _LITTLE_SPACE or (status.f_files and files < 100_000)
    fix = "free some space: imagetool rmi, or choose another place with --root" if little else ""
    yield Finding("storage", "limited" if little else "ok", detail, fix)
    if _can_map(place, kind):
        yield Finding("idmap", "ok", f"mounts of {kind} can show other owners: --userns auto")
    else:
        fix = "--root on ext4, xfs or btrfs, Linux 5.19 or newer; --userns host needs nothing"
        yield Finding("idmap", "limited", f"mounts of {kind} cannot show other owners", fix)


def _can_map(place: Path, kind: str) -> bool:
    """Say whether mounts of a filesystem can be mapped: root tries it, others know it."""
    if not is_host_root():
        return kind in _MAPPABLE and syscalls.kernel() >= _MAPPABLE[kind]
    if syscalls.kernel() < (5, 19):  # overlayfs takes no mapped layers
        return False
    row = {"containerID": 0, "hostID": 100_000, "size": 65_536}
    try:
        namespace = make_user_namespace({"uidMappings": [row], "gidMappings": [row]})
    except (OSError, Refused):
        return False
    try:
        mount = syscalls.clone_mount(os.fsencode(place), recursive=False)
        try:
            syscalls.map_mount(mount, namespace, recursive=False)
        finally:
            os.close(mount)
    except OSError:
        return False
    finally:
        os.close(namespace)
    return True


def _filesystem(place: Path) -> str:
    """Return the type of the filesystem that a path is on."""
    device = os.stat(place).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return "an unknown filesystem"


def _limits() -> Iterator[Finding]:
    good, refused = [], {}
    with GroupTree() as tree:
        for option, resources in _LIMITS.items():
            try:
                tree.group(resources).close()
                good.append(option)
            except HostError as error:
                refused[option] = str(error)
    if not refused:
        yield Finding("limits", "ok", f"{', '.join(good)} can be put into force")
        return
    fix = "run as root, or in a delegated group: systemd-run --user --scope -p Delegate=yes imagetool …"
    if os.geteuid() == 0:  # of a container, whose control groups are only read
        fix = "give the limits to the outer container, or start that with --privileged --cgroupns host"
    yield Finding("limits", "limited", f"no {', '.join(refused)} ({next(iter(refused.values()))[:200]})", fix)


def _seccomp() -> Iterator[Finding]:
    machine = os.uname().machine
    try:
        seccomp = Security().seccomp_tree()
        known = bool(seccomp and filter_of(seccomp, machine))
    except ImagetoolError:
        known = False
    if known and Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        yield Finding("seccomp", "ok", f"system calls are filtered on {machine}")
    else:
        fix = "--security-opt seccomp=unconfined runs without a filter; trusted images only"
        yield Finding("seccomp", "missing", f"no filter of system calls on {machine}", fix)


def _programs() -> Iterator[Finding]:
    for name, package, isolation in _RUNTIMES:
        path = shutil.which(name)
        if path is None:
            fix = f"apt-get install {package}, if wanted for --isolation {isolation}"
            yield Finding(name, "limited", "not installed", fix)
        else:
            yield Finding(name, "ok", f"{path}: {_first_line([path, '--version'])}; --isolation {isolation}")


def _first_line(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return "does not start"
    text = (done.stdout or done.stderr).strip().partition("\n")[0]
    return "".join(char for char in text if char.isprintable())[:80]


def _network(choice: Choice) -> Iterator[Finding]:
    found = [name for name, _ in helpers()]
    if choice.network.own:
        how = "works" if is_host_root() and holds("CAP_SYS_ADMIN") else f"and {TUNNEL} are there"
        yield Finding("network", "ok", f"{os.path.basename(choice.network.helper[0])} {how}")
    elif not found:
        yield Finding("network", "limited", f"containers use the host's: {choice.lacking}", _HELPER_FIX)
    else:
        fix = f"as root: modprobe tun; chmod 0666 {TUNNEL}; or another helper: {_HELPER_FIX}"
        if _in_container() and not TUNNEL.exists():
            fix = f"start the outer container with --device {TUNNEL}"
        yield Finding("network", "limited", f"containers use the host's: {choice.lacking}", fix)


def _connected() -> Choice:
    """Return the network of containers; root tries the helper, others would have to become another user for it."""
    if not (is_host_root() and holds("CAP_SYS_ADMIN")):
        return choose()
    with EmbeddedExecutor() as executor:
        return choose(lambda network: executor.connect(network, Sandbox()))


def _network_used(choice: Choice) -> str:
    if helper := choice.network.helper:
        return f"one of each container's own, by {os.path.basename(helper[0])}, unless --network says otherwise"
    return "the host's, with a warning, unless --network says otherwise or IMAGETOOL_NETWORK_FALLBACK is refuse"


def _emulation() -> Iterator[Finding]:
    host = this_platform()
    found = emulators(host)
    qemu = [path for folder in os.get_exec_path() for path in glob(f"{escape(folder)}/qemu-*-static")]
    if found:
        yield Finding("emulation", "ok", f"programs for {', '.join(found)} run too")
    elif qemu and has_instances():
        yield Finding("emulation", "ok", f"{len(qemu)} emulators can be registered in user namespaces of containers")
    else:
        fix = "apt-get install qemu-user-static binfmt-support"
        yield Finding("emulation", "limited", f"RUN works for linux/{host.architecture} only", fix)


def _clock() -> Iterator[Finding]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if time.time() < _SANE_TIME:
        yield Finding("clock", "limited", f"it is {now}, they say: certificates will not be valid", "set the clock")
    else:
        yield Finding("clock", "ok", now)


def _certificates() -> Iterator[Finding]:
    context = ssl.create_default_context()
    count = context.cert_store_stats()["x509_ca"]
    folder = ssl.get_default_verify_paths().capath
    if not count and folder and any(Path(folder).glob("*.0")):
        yield Finding("certificates", "ok", f"authorities are in {folder}")
    elif count:
        yield Finding("certificates", "ok", f"{count} authorities are trusted")
    else:
        fix = "apt-get install ca-certificates"
        yield Finding("certificates", "limited", "no authority is trusted: registries cannot prove who they are", fix)
