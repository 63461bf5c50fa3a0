"""The settings files of other systems: grammars written a second time accept ours, and refuse what is wrong."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.errors import InvalidDocument, Unsupported
from imagetool.runtime.bundles import jail, lxc, nspawn, openvz, zone
from tests.support.grammars import ctidconf, jailconf, zonecfg

DTD = Path(jailconf.__file__).with_name("zone.dtd")
PROPERTIES = {"zonepath": "/zones/a", "brand": "lx", "autoboot": "false", "ip-type": "exclusive"}
KERNEL = ("attr", {"name": "kernel-version", "type": "string", "value": "4.4"})
MEMORY = ("capped-memory", {"physical": "512m"})


# -- FreeBSD ----------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1), min_size=1))
def test_jail_conf_gives_every_string_back(values: list[str]) -> None:
    text = jail.jail_conf("box", [("exec.start", value) for value in values])
    (found,) = jailconf.parse(text)
    assert (found.name, found.parameters) == ("box", {"exec.start": values})


@pytest.mark.parametrize(
    "parameters",
    [
        [("bogus", "1")],
        [("enforce_statfs", "3")],
        [("path", "relative")],
        [("vnet", "yes")],
        [("sysvmsg", "shared")],
        [("mount", "only two")],
        [("exec.jail_user", "1000")],
    ],
)
def test_jail_conf_refuses_what_jail_would(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidDocument, match=r"jail\.conf"):
        jail.jail_conf("box", parameters)


@pytest.mark.parametrize(
    "text", ["a { path = /x }", "a { path /x; }", 'a { path = "/x; }', "a { path = ; }", "{ }", "a {"]
)
def test_the_second_grammar_of_jail_conf_refuses_broken_files(text: str) -> None:
    with pytest.raises(jailconf.JailConfError):
        jailconf.parse(text)


# -- Solaris ----------------------------------------------------------------------------------------


def test_zonecfg_commands_are_good_by_the_second_grammar() -> None:
    text = zone.zonecfg(PROPERTIES, [KERNEL, MEMORY])
    assert zonecfg.parse(text) == (PROPERTIES, [KERNEL, MEMORY])


def _validated(path: Path, text: str) -> bool:
    path.write_text(text)
    command = ["xmllint", "--noout", "--nonet", "--dtdvalid", str(DTD), str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.peer
def test_the_zones_xml_is_valid_by_the_dtd_and_wrong_ones_are_not(tmp_path: Path) -> None:
    if not shutil.which("xmllint"):
        pytest.skip("needs libxml2-utils")
    text = zone.zone_xml("a", PROPERTIES, [KERNEL, MEMORY])
    assert _validated(tmp_path / "good.xml", text)
    for number, (old, new) in enumerate(
        [
            ('autoboot="false"', 'autoboot="maybe"'),
            ('zonepath="/zones/a" ', ""),
            ('type="string"', 'type="text"'),
            ("<mcap ", "<memory "),
            ("<zone ", '<zone bogus="1" '),
            ("</zone>", ""),
        ]
    ):
        assert old in text
        assert not _validated(tmp_path / f"bad{number}.xml", text.replace(old, new)), new


@pytest.mark.parametrize(
    ("properties", "resources"),
    [
        ({**PROPERTIES, "autoboot": "maybe"}, []),
        ({**PROPERTIES, "bogus": "x"}, []),
        ({**PROPERTIES, "brand": "docker"}, []),
        ({key: value for key, value in PROPERTIES.items() if key != "zonepath"}, []),
        (PROPERTIES, [("attr", {"name": "x", "kind": "string"})]),
        (PROPERTIES, [("attr", {"name": "a", "type": "string", "value": "two words"})]),
        (PROPERTIES, [("bogus", {})]),
        (PROPERTIES, [("capped-memory", {"physical": "much"})]),
    ],
)
def test_zones_refuse_what_zonecfg_would(properties: dict[str, str], resources: list[zone.Resource]) -> None:
    for write in (lambda: zone.zonecfg(properties, resources), lambda: zone.zone_xml("a", properties, resources)):
        with pytest.raises(InvalidDocument, match="zonecfg"):
            write()


@pytest.mark.parametrize(
    "text",
    [
        "set zonepath=/a\ncommit\n",
        "create -b\nset zonepath=/a\nadd attr\nset name=x\nend\ncommit\n",
        "create -b\nset zonepath=/a\nadd bogus\nend\ncommit\n",
        "create -b\nset zonepath=/a\nset bogus=1\ncommit\n",
        "create -b\nset zonepath=a\nverify\ncommit\n",
        "create -b\nset zonepath=/a\n",
        "create -b\nset zonepath=/a b\ncommit\n",
    ],
)
def test_the_second_grammar_of_zonecfg_refuses_broken_files(text: str) -> None:
    with pytest.raises(zonecfg.ZonecfgError):
        zonecfg.parse(text)


# -- OpenVZ -----------------------------------------------------------------------------------------

PLACES = [("VE_ROOT", "/vz/root/$VEID"), ("VE_PRIVATE", "/vz/private/$VEID"), ("OSTEMPLATE", "a-1-x86_64")]


def test_ctid_conf_is_good_by_the_second_grammar() -> None:
    pairs = [*PLACES, ("PHYSPAGES", "0:512M"), ("KMEMSIZE", "unlimited"), ("ONBOOT", "no")]
    assert ctidconf.parse(openvz.ctid_conf(pairs)) == dict(pairs)


@pytest.mark.parametrize(
    "pair",
    [
        ("BOGUS", "1"),
        ("PHYSPAGES", "2G:1G"),
        ("PHYSPAGES", "much"),
        ("ONBOOT", "maybe"),
        ("OSTEMPLATE", "a b"),
        ("VE_ROOT", '/vz"; rm -rf "/'),
        ("VE_ROOT", "/vz/`id`"),
        ("VE_ROOT", "/vz\n/x"),
    ],
)
def test_ctid_conf_refuses_what_vzctl_would(pair: tuple[str, str]) -> None:
    with pytest.raises((InvalidDocument, Unsupported), match=r"CTID\.conf"):
        openvz.ctid_conf([("HOSTNAME", "box"), pair])


@pytest.mark.parametrize(
    "text", ["VE_ROOT=/x\n", 'BOGUS="1"\n', 'PHYSPAGES="2:1"\n', 'ONBOOT="no"\n', 'ONBOOT="no"\n' * 2]
)
def test_the_second_grammar_of_ctid_conf_refuses_broken_files(text: str) -> None:
    with pytest.raises(ctidconf.CtidConfError):
        ctidconf.parse(text)


# -- LXC and systemd-nspawn, which run for real in tests/integration/systems --------------------------


@pytest.mark.parametrize(
    "pair",
    [
        ("lxc.bogus", "1"),
        ("lxc.rootfs.path", "/no/dir"),
        ("lxc.init.uid", "app"),
        ("lxc.environment", "A=1\nlxc.hook.start = /bin/x"),
        ("lxc.net.0.type", "bogus"),
    ],
)
def test_lxc_config_refuses_unknown_keys_and_wrong_values(pair: tuple[str, str]) -> None:
    with pytest.raises((InvalidDocument, Unsupported), match="LXC config"):
        lxc.config([pair])


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"]))))
def test_lxc_command_lines_give_the_words_back_or_say_that_they_cannot(args: list[str]) -> None:
    """shlex reads them as LXC does where no backslash is in them."""
    try:
        line = lxc.command_line(tuple(args))
    except Unsupported:
        assert any("'" in arg and '"' in arg for arg in args)
        return
    if not any("\\" in arg for arg in args):
        assert shlex.split(line) == args


@pytest.mark.parametrize(
    "sections",
    [
        {"Exec": [("Bogus", "1")]},
        {"Bogus": [("Boot", "no")]},
        {"Exec": [("Boot", "maybe")]},
        {"Exec": [("Environment", "A=1\n[Files]\nBind=/")]},
    ],
)
def test_nspawn_settings_refuse_unknown_keys_and_wrong_values(sections: dict[str, list[tuple[str, str]]]) -> None:
    with pytest.raises((InvalidDocument, Unsupported), match=r"box\.nspawn"):
        nspawn.settings(sections, what="box.nspawn")  # type: ignore[arg-type]
