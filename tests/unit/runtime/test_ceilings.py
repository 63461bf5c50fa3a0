"""Limits as they are written, and what is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.errors import UsageError
from imagetool.runtime.ceilings import Ceilings, Ulimit, parse_ceilings, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("512k", 512 << 10),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("64MB", 64 << 20),
        ("64MiB", 64 << 20),
        ("1.5g", 3 << 29),
        ("2t", 2 << 40),
        ("7b", 7),
        ("-1", -1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size("--memory", text) == size


@pytest.mark.parametrize("text", ["", "m", "-2", "1e3", "1,5g", "٣m", "64 m", "64x", "0x10", "9" * 19])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--memory"):
        parse_size("--memory", text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5", 1.5), ("10m", 600), ("1h30m5s", 5405)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration("--timeout", text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1d", "m5", "1s1m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--timeout"):
        parse_duration("--timeout", text)


def test_resources_of_the_oci_config() -> None:
    ceilings = parse_ceilings(
        memory="64m", memory_swap="128m", cpus="0.5", cpu_shares="2", cpuset_cpus="0-1,3", pids_limit="7"
    )
    assert ceilings.resources() == {
        "memory": {"limit": 64 << 20, "swap": 128 << 20},
        "cpu": {"shares": 2, "quota": 50_000, "period": 100_000, "cpus": "0-1,3"},
        "pids": {"limit": 7},
    }
    assert parse_ceilings(memory="64m").resources() == {"memory": {"limit": 64 << 20, "swap": 64 << 20}}
    assert parse_ceilings(pids_limit="0").resources() == {"pids": {"limit": -1}}
    assert parse_ceilings().resources() == {}
    assert parse_ceilings() == Ceilings()


def test_ulimits_of_the_oci_config() -> None:
    infinity = (1 << 64) - 1
    assert Ulimit.parse("nofile=10:20").tree() == {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}
    assert Ulimit.parse("core=0").tree() == {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}
    assert Ulimit.parse("nproc=5:unlimited").tree() == {"type": "RLIMIT_NPROC", "soft": 5, "hard": infinity}
    assert Ulimit.parse("stack=-1").tree() == {"type": "RLIMIT_STACK", "soft": infinity, "hard": infinity}


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": "1m"},
        {"memory_swap": "1g"},
        {"memory": "1g", "memory_swap": "512m"},
        {"cpus": "0"},
        {"cpus": "two"},
        {"cpu_shares": "1"},
        {"cpuset_cpus": "0-"},
        {"cpuset_cpus": "0\n1"},
        {"pids_limit": "-2"},
        {"pids_limit": "many"},
        {"shm_size": "0"},
        {"shm_size": "-1"},
        {"timeout": "0"},
        {"ulimit": ["nofile"]},
        {"ulimit": ["files=3"]},
        {"ulimit": ["nofile=20:10"]},
        {"ulimit": ["nofile=-1:10"]},
        {"ulimit": ["nofile=1:2:3"]},
        {"ulimit": [f"nofile={1 << 63}"]},
    ],
)
def test_what_cannot_be_is_a_usage_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        parse_ceilings(**wrong)


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12), st.text(max_size=20))
def test_any_text_is_a_limit_or_a_usage_error(size: str, cpus: str, pids: str, ulimit: str) -> None:
    for options in ({"memory": size}, {"cpus": cpus}, {"pids_limit": pids}, {"ulimit": [ulimit]}, {"timeout": size}):
        with contextlib.suppress(UsageError):
            parse_ceilings(**options)  # type: ignore[arg-type]
