"""/etc/hosts and /etc/resolv.conf of containers."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.errors import UsageError
from imagetool.runtime.names import Names, parse_names

HOST = "# comment\nnameserver 192.0.2.1\n  search a.test\nsortlist 1\n;x\noptions ndots:2\nnameserver 127.0.0.53\n"


def test_what_resolvers_read_is_kept() -> None:
    kept = "nameserver 192.0.2.1\nsearch a.test\noptions ndots:2\nnameserver 127.0.0.53\n"
    assert Names().resolv_conf_text(HOST, own_network=False) == kept


def test_name_servers_on_the_hosts_loopback_are_of_no_use_elsewhere() -> None:
    kept = "nameserver 192.0.2.1\nsearch a.test\noptions ndots:2\n"
    assert Names().resolv_conf_text(HOST + "nameserver ::1\nnameserver\n", own_network=True) == f"{kept}nameserver\n"


def test_name_servers_that_are_given_replace_the_hosts() -> None:
    names = parse_names([], ["198.51.100.7", "2001:DB8::1"])
    text = "nameserver 198.51.100.7\nnameserver 2001:db8::1\nsearch a.test\noptions ndots:2\n"
    assert names.resolv_conf_text(HOST, own_network=True) == text


def test_hosts_that_are_given_are_added() -> None:
    names = parse_names(["db.test:192.0.2.9", "six=[2001:db8::2]", "x:::1"], [])
    text = "127.0.0.1\tlocalhost box\n::1\tlocalhost\n192.0.2.9\tdb.test\n2001:db8::2\tsix\n::1\tx\n"
    assert names.hosts_text("box") == text


@pytest.mark.parametrize(
    "text", ["", "x", "x:", ":1.2.3.4", "a b:1.2.3.4", "a\nb:1.2.3.4", "x:1.2.3", "x:1.2.3.4\n", "-x:::1"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--add-host"):
        parse_names([text], [])


@given(st.text(max_size=30))
def test_no_text_gets_a_line_of_its_own(text: str) -> None:
    for hosts, servers in (([text], []), ([f"{text}:192.0.2.1"], []), ([f"x:{text}"], []), ([], [text])):
        with contextlib.suppress(UsageError):
            names = parse_names(hosts, servers)
            assert len(names.hosts_text("box").splitlines()) == 2 + len(hosts)
            assert len(names.resolv_conf_text("", own_network=True).splitlines()) == len(servers)


def test_a_name_server_of_the_network_replaces_the_hosts_but_not_those_that_are_given() -> None:
    rest = "search a.test\noptions ndots:2\n"
    assert Names().resolv_conf_text(HOST, own_network=True, server="10.0.2.3") == f"nameserver 10.0.2.3\n{rest}"
    given = parse_names([], ["198.51.100.7"])
    assert given.resolv_conf_text(HOST, own_network=True, server="10.0.2.3") == f"nameserver 198.51.100.7\n{rest}"
