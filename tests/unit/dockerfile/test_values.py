"""Durations, sizes, ports, signals, users and paths: rules 8, 20, 30 and 40 of the build reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from imagetool.dockerfile.values import (
    context_path,
    is_remote,
    parse_boolean,
    parse_duration,
    parse_number,
    parse_ports,
    parse_signal,
    parse_size,
    parse_user,
    split_pivot,
)
from imagetool.errors import DockerfileError


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("1ns", 1),
        ("1us", 10**3),
        ("1µs", 10**3),
        ("1μs", 10**3),
        ("1ms", 10**6),
        ("1s", 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        (".5s", 5 * 10**8),
        ("1.s", 10**9),
        ("-2s", -2 * 10**9),
        ("+2s", 2 * 10**9),
        ("0.1234567891s", 123456789),
        ("00000000000000000000000005s", 5 * 10**9),
        ("2562047h47m16.854775807s", 2**63 - 1),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parse_duration, ""),
        (parse_duration, "5"),
        (parse_duration, "5 s"),
        (parse_duration, "s"),
        (parse_duration, ".s"),
        (parse_duration, "1d"),
        (parse_duration, "1s2"),
        (parse_duration, "2562047h47m16.854775808s"),
        (parse_duration, "9" * 150 + "h"),
        (parse_duration, "9" * 1_000_000),
        (parse_size, ""),
        (parse_size, "m"),
        (parse_size, "-1"),
        (parse_size, "1x"),
        (parse_size, "1 m b"),
        (parse_signal, ""),
        (parse_signal, "0"),
        (parse_signal, "65"),
        (parse_signal, "-9"),
        (parse_signal, "NOPE"),
        (parse_signal, "SIGRTMIN+99"),
        (parse_signal, "SIGRTMAX+1"),
        (parse_user, ""),
        (parse_user, ":g"),
        (parse_user, "u:"),
        (parse_user, "u:g:h"),
    ],
)
def test_a_text_that_is_no_such_value_is_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(DockerfileError):
        read(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("12", 12),
        ("12b", 12),
        ("64k", 65536),
        ("64 KB", 65536),
        ("1.5MiB", 1536 << 10),
        ("1g", 1 << 30),
        ("1P", 1 << 50),
    ],
)
def test_a_size_has_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("spec", "ports"),
    [
        ("80", ["80/tcp"]),
        ("80/", ["80/tcp"]),
        ("80/UDP", ["80/udp"]),
        ("80/sctp", ["80/sctp"]),
        ("8000-8002", ["8000/tcp", "8001/tcp", "8002/tcp"]),
        ("8000-8000/udp", ["8000/udp"]),
        ("8080:80", ["80/tcp"]),
        ("8080-8090:80", ["80/tcp"]),
        ("8080-8081:80-81", ["80/tcp", "81/tcp"]),
        ("127.0.0.1:8080:80", ["80/tcp"]),
        ("127.0.0.1::80", ["80/tcp"]),
        ("[::1]:8080:80", ["80/tcp"]),
        ("0", ["0/tcp"]),
        ("65535", ["65535/tcp"]),
    ],
)
def test_a_port_is_spelled_out(spec: str, ports: list[str]) -> None:
    assert list(parse_ports([spec])) == ports


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "x",
        "65536",
        "-1",
        "80-70",
        "80-",
        "-80",
        "80/http",
        "80/tcp/udp",
        "/tcp",
        "8080-8082:80-81",
        "x:80",
        "h:1:80",
        "1.2.3:1:80",
        "8 0",
    ],
)
def test_a_wrong_port_is_refused_by_its_text(spec: str) -> None:
    with pytest.raises(DockerfileError, match="port") as refused:
        parse_ports(["1", spec])
    assert repr(spec) in refused.value.message


def test_ports_keep_their_order_and_are_not_repeated() -> None:
    assert parse_ports(["90", "80-81", "81/tcp", "81/udp"]) == ("90/tcp", "80/tcp", "81/tcp", "81/udp")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9", 9),
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigterm", 15),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
        ("64", 64),
    ],
)
def test_a_signal_is_a_name_or_a_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


def test_booleans_and_numbers_are_gos() -> None:
    assert [parse_boolean(text) for text in ("1", "T", "true", "0", "F", "False", "yes", "tRUE")] == [
        True, True, True, False, False, False, None, None,
    ]  # fmt: skip
    assert [parse_number(text) for text in ("7", "007", "4294967295", "4294967296", "-1", "+1", "1_0", "", "٣")] == [
        7, 7, 4294967295, None, None, None, None, None, None,
    ]  # fmt: skip
    assert [parse_number(text, base=8) for text in ("0755", "8", "0o7")] == [0o755, None, None]


def test_a_user_is_split_from_its_group() -> None:
    assert [parse_user(text) for text in ("u", "u:g", "0:0")] == [("u", None), ("u", "g"), ("0", "0")]


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("a/b", "a/b"),
        ("/a", "a"),
        ("../../a", "a"),
        ("/../a", "a"),
        ("a/../../b", "b"),
        ("./a//b/.", "a/b"),
        (".", ""),
        ("/", ""),
        ("a/..", ""),
    ],
)
def test_a_source_never_leads_out_of_the_context(source: str, path: str) -> None:
    assert context_path(source) == path


def test_the_pivot_splits_a_source() -> None:
    assert [split_pivot(s) for s in ("a/./b/c", "a/b", "./a", "a/./b/./c", "/./a")] == [
        ("a", "b/c"), ("", "a/b"), ("", "./a"), ("a", "b/./c"), ("", "a"),
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["http://x", "HTTPS://x/y", "git://x", "ssh://git@x/y", "git@github.com:a/b.git"])
def test_a_url_or_repository_is_remote(source: str) -> None:
    assert is_remote(source)


@pytest.mark.parametrize("source", ["a", "/a:b", "./git@x:y", "dir/https://x", "http:/x", "a@b"])
def test_a_path_is_not_remote(source: str) -> None:
    assert not is_remote(source)
