"""How much of the machine a container may use, as the options of docker build and run say it.

Source: runtime-spec v1.2 config-linux.md "Control groups", config.md "POSIX process"; getrlimit(2).
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterable
from typing import Any, Final

from imagetool.errors import UsageError
from imagetool.values import dataclass

#: Processes that the containers of one build may have together when nothing else is said.
DEFAULT_PIDS: Final = 4096
_UNLIMITED: Final = -1
_PERIOD: Final = 100_000  # microseconds over which a CPU quota is counted
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)([bkmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,6})?)s?)?", re.ASCII)
_CPUS: Final = re.compile(r"\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*", re.ASCII)
#: The least that a kernel accepts as a memory limit in Docker, below which no program starts.
_LEAST_MEMORY: Final = 6 << 20
_RLIMITS: Final = {name.removeprefix("RLIMIT_").lower(): name for name in dir(resource) if name.startswith("RLIMIT_")}


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit of each process: `name` as in "nofile"; -1 is unlimited."""

    name: str
    soft: int
    hard: int

    @classmethod
    def parse(cls, text: str) -> Ulimit:
        """Read NAME=SOFT[:HARD]. Raises UsageError."""
        name, _, values = text.partition("=")
        soft, colon, hard = values.partition(":")
        if name not in _RLIMITS:
            raise UsageError(f"--ulimit {text[:80]!r}: there are {', '.join(sorted(_RLIMITS))}")
        numbers = [_UNLIMITED if value in ("-1", "unlimited") else value for value in (soft, hard if colon else soft)]
        if not all(value == _UNLIMITED or (str(value).isascii() and str(value).isdecimal()) for value in numbers):
            raise UsageError(f"--ulimit {text[:80]!r}: write NAME=SOFT[:HARD], for example nofile=1024:4096")
        low, high = (int(value) for value in numbers)
        if high != _UNLIMITED and (low == _UNLIMITED or low > high):
            raise UsageError(f"--ulimit {text[:80]!r}: the soft limit is above the hard one")
        if max(low, high) >= 1 << 63:
            raise UsageError(f"--ulimit {text[:80]!r}: a limit has 63 bits")
        return cls(name, low, high)

    def tree(self) -> dict[str, Any]:
        """Return the entry of `process.rlimits`."""
        infinity = (1 << 64) - 1
        soft, hard = (infinity if value == _UNLIMITED else value for value in (self.soft, self.hard))
        return {"type": _RLIMITS[self.name], "soft": soft, "hard": hard}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What one container may use at most; None everywhere: what the machine gives.

    Args:
        memory: bytes.
        memory_swap: bytes of memory and swap together; -1 for any amount of swap. None: no swap beyond `memory`.
        cpus: processors' worth of time, for example 1.5.
        cpu_shares: weight against others, 2 to 262144; 1024 is normal.
        cpuset: the processors to run on, for example "0-2,4".
        pids: processes; -1 for any number. None: DEFAULT_PIDS for all containers of a build together.
        shm_size: bytes of /dev/shm.
        ulimits: of each process; clamped to what the builder itself may have.
        timeout: seconds until the container is killed.

    Raises UsageError for a value that cannot be.
    """

    memory: int | None = None
    memory_swap: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset: str = ""
    pids: int | None = None
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < _LEAST_MEMORY:
            raise UsageError(f"--memory {self.memory}: the least is {_LEAST_MEMORY >> 20}m")
        if self.memory_swap is not None and self.memory is None:
            raise UsageError("--memory-swap needs --memory")
        if self.memory_swap not in (None, _UNLIMITED) and (self.memory_swap or 0) < (self.memory or 0):
            raise UsageError("--memory-swap is memory and swap together, so it cannot be less than --memory")
        if self.cpus is not None and not 0.01 <= self.cpus <= 4096:
            raise UsageError(f"--cpus {self.cpus}: from 0.01 on")
        if self.cpu_shares is not None and not 2 <= self.cpu_shares <= 262144:
            raise UsageError(f"--cpu-shares {self.cpu_shares}: from 2 to 262144")
        if self.cpuset and not _CPUS.fullmatch(self.cpuset):
            raise UsageError(f"--cpuset-cpus {self.cpuset[:80]!r}: write for example 0-2,4")
        if self.pids is not None and self.pids != _UNLIMITED and not 1 <= self.pids <= 1 << 22:
            raise UsageError(f"--pids-limit {self.pids}: from 1 to {1 << 22}, or -1 for any number")
        if self.shm_size is not None and self.shm_size <= 0:
            raise UsageError("--shm-size is at least one byte")
        if self.timeout is not None and self.timeout <= 0:
            raise UsageError("--timeout is more than nothing")

    def resources(self) -> dict[str, Any]:
        """Return `linux.resources` of the OCI config: what needs a control group; {} for nothing."""
        tree: dict[str, Any] = {}
        if self.memory is not None:
            tree["memory"] = {
                "limit": self.memory,
                "swap": self.memory if self.memory_swap is None else self.memory_swap,
            }
        cpu: dict[str, Any] = {}
        if self.cpu_shares is not None:
            cpu["shares"] = self.cpu_shares
        if self.cpus is not None:
            cpu |= {"quota": round(self.cpus * _PERIOD), "period": _PERIOD}
        if self.cpuset:
            cpu["cpus"] = self.cpuset
        if cpu:
            tree["cpu"] = cpu
        if self.pids is not None:
            tree["pids"] = {"limit": self.pids}
        return tree


def parse_size(option: str, text: str) -> int:
    """Return bytes: a number with b, k, m, g or t, in powers of 1024; -1 for unlimited. Raises UsageError."""
    if text == "-1":
        return _UNLIMITED
    found = _SIZE.fullmatch(text)
    if found is None:
        raise UsageError(f"{option} {text[:80]!r}: write a size such as 512m or 2g")
    return (
        int(float(found[1]) * _UNITS[found[2].lower()]) if "." in found[1] else int(found[1]) * _UNITS[found[2].lower()]
    )


def parse_duration(option: str, text: str) -> float:
    """Return seconds: 90, 90s, 1h30m. Raises UsageError."""
    found = _DURATION.fullmatch(text)
    if found is None or not text:
        raise UsageError(f"{option} {text[:80]!r}: write a time such as 90s, 10m or 1h30m")
    hours, minutes, seconds = found.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)


def parse_ceilings(
    *,
    memory: str | None = None,
    memory_swap: str | None = None,
    cpus: str | None = None,
    cpu_shares: str | None = None,
    cpuset_cpus: str | None = None,
    pids_limit: str | None = None,
    shm_size: str | None = None,
    ulimit: Iterable[str] = (),
    timeout: str | None = None,
) -> Ceilings:
    """Return what options in the manner of docker run ask for. Raises UsageError."""
    pids = _integer("--pids-limit", pids_limit)
    return Ceilings(
        memory=None if memory is None else parse_size("--memory", memory),
        memory_swap=None if memory_swap is None else parse_size("--memory-swap", memory_swap),
        cpus=_decimal("--cpus", cpus),
        cpu_shares=_integer("--cpu-shares", cpu_shares),
        cpuset=cpuset_cpus or "",
        pids=_UNLIMITED if pids == 0 else pids,  # as with docker
        shm_size=None if shm_size is None else parse_size("--shm-size", shm_size),
        ulimits=tuple(map(Ulimit.parse, ulimit)),
        timeout=None if timeout is None else parse_duration("--timeout", timeout),
    )


def _integer(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"-?\d{1,10}", text, re.ASCII):
        raise UsageError(f"{option} {text[:80]!r} is not a number")
    return int(text)


def _decimal(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,5}(\.\d{1,6})?", text, re.ASCII):
        raise UsageError(f"{option} {text[:80]!r} is not a number")
    return float(text)
