"""What each isolator may hold."""

from __future__ import annotations

from typing import Any

import pytest

from imagetool.appc.isolators import check_isolators
from imagetool.errors import InvalidDocument

CPU, BANDWIDTH, RETAIN, SECCOMP = (
    "resource/cpu",
    "resource/block-bandwidth",
    "os/linux/capabilities-retain-set",
    "os/linux/seccomp-retain-set",
)
QUANTITIES = ("1", "500m", "1k", "1K", "1Ki", "2Ei", "1e3", "1E-3", "1n", "-1", ".5", "1.")
NO_QUANTITIES = ("", "m", "1 k", "1kk", "1e", "--1", "1,5", "1m\n", "٣", True, [])
SELINUX = {"user": "system_u", "role": "system_r", "type": "dhcpc_t", "level": "s0:c1"}


def check(*isolators: tuple[str, Any], strict: bool = True) -> list[dict[str, Any]]:
    tree = {"isolators": [{"name": name, "value": value} for name, value in isolators]}
    return check_isolators(tree, path="$.app", what="m", strict=strict)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (CPU, {"limit": text})
            for text in ("1", "500m", "1k", "1K", "1Ki", "2Ei", "1e3", "1E-3", "1n", "-1", ".5", "1.")
        ),
        (CPU, {"limit": 2}),
        (CPU, {"request": 0.5}),
        (CPU, {"default": False, "Request": "1", "LIMIT": "2"}),
        (CPU, {}),
        ("resource/memory", {"limit": "1G", "request": None}),
        (BANDWIDTH, {"default": True, "limit": "2M"}),
        ("resource/block-iops", {"default": True, "limit": "100"}),
        ("resource/network-bandwidth", {"default": True, "limit": "1G"}),
        (RETAIN, {"set": ["CAP_KILL"]}),
        ("os/linux/capabilities-remove-set", {"set": ["CAP_SYS_PTRACE", "CAP_KILL"]}),
        (SECCOMP, {"set": ["@appc.io/all"]}),
        ("os/linux/seccomp-remove-set", {"set": ["clock_adjtime"], "errno": "ENOSYS"}),
        (SECCOMP, {"set": ["read"], "errno": ""}),
        ("os/linux/no-new-privileges", True),
        ("os/linux/selinux-context", SELINUX),
        ("os/linux/apparmor-profile", {"profile": "x"}),
        ("os/linux/oom-score-adj", -1000),
        ("os/linux/oom-score-adj", 1000),
        ("os/linux/cpu-shares", 2),
        ("os/linux/cpu-shares", 262144),
        ("os/unix/sysctl", {"net.ipv4.tcp_mtu_probing": "1"}),
    ],
)
def test_what_is_accepted(name: str, value: object) -> None:
    assert check((name, value)) == [{"name": name, "value": value}]


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        *(
            (CPU, {"limit": text}, ".limit")
            for text in ("", "m", "1 k", "1kk", "1e", "--1", "1,5", "1m\n", "٣", True, [])
        ),
        (CPU, {"default": True, "limit": "1"}, ".default"),
        (CPU, {"default": "false"}, ".default"),
        (CPU, {"limit": "1", "Limit": "2"}, "is there twice"),
        (CPU, None, ".value"),
        (CPU, "1", ".value"),
        (BANDWIDTH, {"limit": "1"}, ".default"),
        (BANDWIDTH, {"default": False, "limit": "1"}, ".default"),
        (BANDWIDTH, {"default": True, "request": "1", "limit": "1"}, ".request"),
        (RETAIN, {"set": []}, ".set"),
        (RETAIN, {}, ".set"),
        (RETAIN, {"set": [""]}, ".set"),
        (RETAIN, {"set": "CAP_KILL"}, ".set"),
        (RETAIN, ["CAP_KILL"], ".value"),
        (SECCOMP, {"set": []}, ".set"),
        (SECCOMP, {"set": ["read"], "errno": "enosys"}, ".errno"),
        (SECCOMP, {"set": ["read"], "errno": "38"}, ".errno"),
        ("os/linux/no-new-privileges", "true", ".value"),
        ("os/linux/no-new-privileges", None, ".value"),
        ("os/linux/selinux-context", SELINUX | {"type": "a:b"}, ".type"),
        ("os/linux/selinux-context", SELINUX | {"user": 1}, ".user"),
        ("os/linux/apparmor-profile", {}, ".profile"),
        ("os/linux/oom-score-adj", -1001, ".value"),
        ("os/linux/oom-score-adj", 1001, ".value"),
        ("os/linux/oom-score-adj", True, ".value"),
        ("os/linux/oom-score-adj", "0", ".value"),
        ("os/linux/cpu-shares", 1, ".value"),
        ("os/linux/cpu-shares", 262145, ".value"),
        ("os/unix/sysctl", {"a": 1}, ".value.a"),
        ("os/unix/sysctl", [], ".value"),
        ("Resource/CPU", {}, ".name"),
    ],
)
def test_what_is_refused(name: str, value: object, named: str) -> None:
    for strict in (True, False):
        with pytest.raises(InvalidDocument) as refused:
            check((name, value), strict=strict)
        assert str(refused.value).startswith("m: $.app.isolators[0]")
        assert named in str(refused.value)


def test_sets_that_contradict_each_other() -> None:
    kill, read = {"set": ["CAP_KILL"]}, {"set": ["read"]}
    both = [(RETAIN, kill), ("os/linux/capabilities-remove-set", kill)]
    assert len(check(*both, strict=False)) == 2  # actool lets it pass
    with pytest.raises(InvalidDocument, match="both a retain set and a remove set"):
        check(*both)
    for strict in (True, False):
        with pytest.raises(InvalidDocument, match="more than one seccomp set"):
            check((SECCOMP, read), ("os/linux/seccomp-remove-set", read), strict=strict)
        with pytest.raises(InvalidDocument, match="more than one seccomp set"):
            check((SECCOMP, read), (SECCOMP, read), strict=strict)


def test_an_isolator_of_others_is_read_and_not_written() -> None:
    assert check(("com.example/later", [1]), strict=False) == [{"name": "com.example/later", "value": [1]}]
    with pytest.raises(InvalidDocument, match="not an isolator of the spec"):
        check(("com.example/later", [1]))
