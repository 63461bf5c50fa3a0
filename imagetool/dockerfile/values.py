"""The small values inside instructions: durations, sizes, booleans, ports, signals, users.

They are read as Go and Docker read them. Every error here is a DockerfileError without a place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from imagetool.dockerfile.wording import quoted
from imagetool.errors import DockerfileError

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION: Final = r"([+-]?)((?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)"
_DURATION_PART: Final = r"([0-9]*)\.?([0-9]*)([a-zµμ]+)"
_DURATION_CHARACTERS: Final = 200
_INT64: Final = 2**63 - 1
_SIZE: Final = r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(?:([kmgtp])?i?b?)"
_BOOLEANS: Final = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)
_PORT: Final = r"([0-9]{1,10})(?:-([0-9]{1,10}))?"
_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_PORT_MAX: Final = 65535
_PORTS: Final = (_PORT_MAX + 1) * len(_PROTOCOLS)

#: Linux on x86 and ARM, without the real-time ones; `signal(7)`.
_SIGNALS: Final = dict(  # noqa: C408 a literal would be four times as long
    HUP=1, INT=2, QUIT=3, TRAP=4, ABRT=6, IOT=6, BUS=7, FPE=8, KILL=9, USR1=10, SEGV=11, USR2=12, PIPE=13, ALRM=14,
    TERM=15, STKFLT=16, CHLD=17, CLD=17, CONT=18, STOP=19, TSTP=20, TTIN=21, TTOU=22, URG=23, XCPU=24, XFSZ=25,
    VTALRM=26, PROF=27, WINCH=28, IO=29, POLL=29, PWR=30, SYS=31,
)  # fmt: skip
_RTMIN: Final = 34
_RTMAX: Final = 64
_REAL_TIME: Final = r"RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?"

_REMOTE: Final = r"(?:https?|git|ssh)://|[a-zA-Z0-9_-]+@[a-zA-Z0-9._-]+:"


def parse_duration(text: str) -> int:
    """Read a Go duration such as `1m30s` or `1.5h`: nanoseconds, possibly negative. A bare `0` needs no unit."""
    if text in ("0", "+0", "-0"):
        return 0
    match = re.fullmatch(_DURATION, text) if len(text) <= _DURATION_CHARACTERS else None
    if not match:
        raise DockerfileError(
            f"not a duration: {quoted(text)}; write a number and ns, us, ms, s, m or h, as 1m30s", about=text
        )
    total = 0
    for whole, fraction, unit in re.findall(_DURATION_PART, match[2]):
        digits = (whole.lstrip("0")[:20] or "0", fraction[:18])
        total += int(digits[0]) * _UNITS[unit] + int(digits[1] or "0") * _UNITS[unit] // 10 ** len(digits[1])
    if total > _INT64:
        raise DockerfileError(f"duration out of range: {quoted(text)}", about=text)
    return -total if match[1] == "-" else total


def parse_size(text: str) -> int:
    """Read a number of bytes with an optional binary unit: `64m`, `1.5GiB`."""
    match = re.fullmatch(_SIZE, text, re.IGNORECASE)
    if not match:
        raise DockerfileError(f"not a size: {quoted(text)}; write a number and b, k, m, g, t or p, as 64m", about=text)
    return int(float(match[1]) * 1024 ** (" kmgtp".index((match[2] or " ").lower())))


def parse_boolean(text: str) -> bool | None:
    """Read a Go boolean (`1 t T true True TRUE` and their opposites); None when it is none."""
    return _BOOLEANS.get(text)


def parse_number(text: str, *, base: int = 10, bits: int = 32) -> int | None:
    """Read an unsigned integer of at most `bits` bits without sign or underscore; None when it is none."""
    digits = "01234567" if base == 8 else "0123456789"
    if not text or len(text) > 40 or text.strip(digits):
        return None
    number = int(text, base)
    return number if number < 1 << bits else None


def parse_ports(specs: Iterable[str]) -> tuple[str, ...]:
    """Read `[[ip:]host:]port[-port][/protocol]` words into `port/protocol`, in order, without duplicates.

    Those are the keys of the image config's ExposedPorts. Host addresses and ports are checked and dropped.
    """
    ports: dict[str, None] = {}
    spelled = 0
    for spec in specs:
        first, last, protocol = _port_spec(spec)
        spelled += last - first + 1
        if spelled > _PORTS:
            raise DockerfileError(f"EXPOSE spells out more than {_PORTS} ports")
        ports.update((f"{number}/{protocol}", None) for number in range(first, last + 1))
    return tuple(ports)


def _port_spec(spec: str) -> tuple[int, int, str]:
    host, _, container = spec.rpartition(":")
    ip, _, host_port = host.rpartition(":")
    numbers, _, protocol = container.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise DockerfileError(f"invalid protocol in port {quoted(spec)}: use tcp, udp or sctp", about=spec)
    first, last = _port_range(numbers, spec)
    if host_port:
        host_first, host_last = _port_range(host_port, spec)
        if host_last - host_first != last - first and first != last:
            raise DockerfileError(
                f"port {quoted(spec)}: the host range and the container range differ in length", about=spec
            )
    if ip:
        _check_address(ip, spec)
    return first, last, protocol


def _port_range(text: str, spec: str) -> tuple[int, int]:
    match = re.fullmatch(_PORT, text)
    first = int(match[1]) if match else -1
    last = int(match[2] or first) if match else -1
    if not 0 <= first <= last <= _PORT_MAX:
        raise DockerfileError(
            f"invalid port {quoted(spec)}: write a number from 0 to {_PORT_MAX} or a range, as 8000-8010", about=spec
        )
    return first, last


def _check_address(text: str, spec: str) -> None:
    from ipaddress import ip_address  # 5 ms to import, and hardly ever needed

    try:
        ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        raise DockerfileError(f"invalid IP address in port {quoted(spec)}", about=spec) from None


def parse_signal(text: str) -> int:
    """Read a signal's number from `9`, `KILL`, `SIGKILL` or `SIGRTMIN+3`, in any case."""
    if text.isascii() and text.isdigit() and len(text) < 4 and 0 < int(text) <= _RTMAX:
        return int(text)
    name = text.upper().removeprefix("SIG")
    real_time = re.fullmatch(_REAL_TIME, name)
    if real_time:
        base = _RTMIN if real_time[1] == "MIN" else _RTMAX
        number = base + int((real_time[2] or "+") + (real_time[3] or "0"))
        if _RTMIN <= number <= _RTMAX:
            return number
    if name not in _SIGNALS:
        raise DockerfileError(
            f"invalid signal {quoted(text)}: use a name such as SIGTERM or a number from 1 to {_RTMAX}", about=text
        )
    return _SIGNALS[name]


def parse_user(text: str) -> tuple[str, str | None]:
    """Split `user[:group]` of USER and --chown into names or numbers; neither may be empty."""
    user, colon, group = text.partition(":")
    if not user or (colon and not group) or ":" in group:
        raise DockerfileError(f"not a user: {quoted(text)}; write user, user:group, uid or uid:gid", about=text)
    return user, group or None


def is_remote(source: str) -> bool:
    """Say whether ADD fetches this source from elsewhere: an HTTP URL or a Git repository."""
    return re.match(_REMOTE, source, re.IGNORECASE) is not None


def context_path(source: str) -> str:
    """Return a COPY source relative to the context root, cleaned: neither `/` nor `..` leads out of it.

    The root itself is the empty string. Symbolic links are not looked at here.
    """
    parts: list[str] = []
    for part in source.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def split_pivot(source: str) -> tuple[str, str]:
    """Split a `COPY --parents` source at `/./`: the part that is left out of the destination, and the part kept."""
    before, pivot, after = source.partition("/./")
    return (before, after) if pivot else ("", source)
