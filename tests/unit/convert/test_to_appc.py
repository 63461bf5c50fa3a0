"""OCI configs to ACI manifests and back: what is kept, what changes sides, and what is reported."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagetool.appc.manifest import ImageManifest
from imagetool.convert.appc import CARRIER, from_aci, to_aci
from imagetool.errors import Unsupported
from imagetool.oci.config import RunConfig
from imagetool.oci.platform import Platform
from tests.support.acicheck import check_manifest
from tests.unit.convert.there_and_back import DIFF_ID, WHEN, back, config, foreign


def there(run: RunConfig) -> tuple[dict[str, Any], list[str]]:
    """Return the app that a run config becomes, which the independent checker has seen, and what is lost."""
    manifest, lost = to_aci(config(run), name="team/app", version="1")
    tree = json.loads(manifest.raw)
    check_manifest(tree)
    return tree["app"], lost


# -- there and back ----------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


_words = st.lists(_texts, max_size=3).map(tuple)


_names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_.-]{0,5}\Z")


_env = st.lists(
    st.tuples(_names, _texts).map("=".join)
    | st.sampled_from(["NOVALUE", "1A=x", "=x", "A B=c", "A=1", "A=2", "", "Ä=1"]),
    max_size=5,
).map(tuple)


_numbers = st.integers(1, 65535).map(str)


_ports = st.one_of(
    _numbers,
    st.tuples(_numbers, st.sampled_from(["tcp", "udp", "sctp", "TCP"])).map("/".join),
    st.sampled_from(["8000-8002/tcp", "80", "80/tcp", "080/tcp", "0", "70000/tcp", "9-8", "abc", "", "٣", "80/"]),
)


_paths = st.text(alphabet="/aAb._- ü", max_size=8) | st.sampled_from(["/data", "data", "/DATA", "/da ta", "/data/"])


_users = (
    st.sampled_from(
        ["", "0", "0:0", "root", "web", "1000", "1000:50", "web:staff", ":50", "u:", "a:b:c", "65534:nogroup", "٣"]
    )
    | _texts
)


_optional_words = st.none() | _words


runs = st.builds(
    RunConfig,
    user=_users,
    env=_env,
    entrypoint=_optional_words,
    cmd=_optional_words,
    working_dir=st.sampled_from(["", "/", "/srv", "srv", "/with space/ü"]),
    exposed_ports=st.lists(_ports, max_size=4, unique=True).map(tuple),
    volumes=st.lists(_paths, max_size=4, unique=True).map(tuple),
    labels=st.dictionaries(_texts, _texts, max_size=3),
    stop_signal=st.sampled_from(["", "SIGTERM", "9"]),
    shell=_optional_words,
    on_build=st.lists(_texts, max_size=2).map(tuple),
    healthcheck=st.none() | st.just({"Test": ["CMD", "true"], "Interval": 10**9}),
    args_escaped=st.booleans(),
    extra=st.dictionaries(st.sampled_from(["Hostname", "Tty"]), st.booleans() | st.none(), max_size=2),
)


platforms = st.sampled_from(
    ["linux/amd64", "linux/386", "linux/arm64", "linux/arm64/v9", "linux/amd64/v3", "linux/arm/v6", "linux/arm/v7",
     "linux/ppc64", "linux/ppc64le", "linux/s390x", "freebsd/amd64", "freebsd/386", "darwin/amd64"]
).map(Platform.parse)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(runs, platforms, _texts, st.sampled_from(["", WHEN, "2016-12-31t23:59:60.5z", "2020-02-29T00:00:00+02:00"]))
def test_every_config_becomes_a_strictly_valid_manifest_and_comes_back_as_it_was(
    run: RunConfig, platform: Platform, author: str, created: str
) -> None:
    before = config(run, platform, author=author, created=created, extra={"moby.later": {"a": 1}})
    manifest, _ = to_aci(before, name="127.0.0.1:5000/Team/App", version="1.0+x")
    check_manifest(json.loads(manifest.raw))
    assert ImageManifest.parse(manifest.raw, strict=True) == manifest
    after, lost = from_aci(manifest, diff_id=DIFF_ID, created=WHEN)
    assert lost == []
    tree, wanted = json.loads(after.raw), json.loads(before.raw)
    wanted["created"] = created or WHEN
    del tree["history"], wanted["history"]
    assert tree == wanted


@settings(deadline=None, max_examples=60)
@given(runs, st.randoms(use_true_random=False))
def test_the_order_in_which_a_config_says_things_does_not_matter(run: RunConfig, random_: random.Random) -> None:
    ports, volumes = list(run.exposed_ports), list(run.volumes)
    random_.shuffle(ports)
    random_.shuffle(volumes)
    other = replace(run, exposed_ports=tuple(ports), volumes=tuple(volumes))
    first, second = (to_aci(config(each), name="a", version="")[0] for each in (run, other))
    assert first.raw == second.raw


@settings(deadline=None, max_examples=60)
@given(runs)
def test_without_the_carrier_the_app_still_says_the_same_the_next_time(run: RunConfig) -> None:
    manifest, _ = to_aci(config(run), name="a", version="1")
    tree = json.loads(manifest.raw)
    tree["annotations"] = [each for each in tree["annotations"] if each["name"] != CARRIER]
    plain, _ = back(tree)
    again, _ = to_aci(plain, name="a", version="1")
    assert manifest.app is not None
    assert again.app is not None
    first, second = (
        {**app, "ports": _each_port(app), "mountPoints": _each_path(app)} for app in (manifest.app, again.app)
    )
    assert second == first


def _each_port(app: Any) -> set[tuple[int, str]]:
    """A range is exposed port by port, up to its bound; the names of ports are our own."""
    return {
        (number, port["protocol"])
        for port in app.get("ports") or ()
        for number in range(port["port"], port["port"] + min(port["count"], 1024))
        if port["protocol"] in ("tcp", "udp", "sctp")
    }


def _each_path(app: Any) -> set[str]:
    return {mount["path"] for mount in app.get("mountPoints") or ()}


# -- field by field ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "wanted"),
    [
        ("", ("0", "0")),
        ("0", ("0", "0")),
        ("1000", ("1000", "0")),
        ("web", ("web", "web")),
        ("web:staff", ("web", "staff")),
        ("1000:50", ("1000", "50")),
        (":50", ("0", "50")),
        ("web:", ("web", "web")),
    ],
)
def test_users(user: str, wanted: tuple[str, str]) -> None:
    app, lost = there(RunConfig(user=user))
    assert (app["user"], app["group"]) == wanted
    assert lost == []


@pytest.mark.parametrize(
    ("exposed", "wanted"),
    [
        (("80",), [("80-tcp", "tcp", 80, 1)]),
        (("80", "80/tcp", "080/TCP"), [("80-tcp", "tcp", 80, 1)]),
        (("53/udp", "53/tcp"), [("53-tcp", "tcp", 53, 1), ("53-udp", "udp", 53, 1)]),
        (("8000-8002/tcp",), [("8000-8002-tcp", "tcp", 8000, 3)]),
        (("65535/sctp",), [("65535-sctp", "sctp", 65535, 1)]),
    ],
)
def test_ports(exposed: tuple[str, ...], wanted: list[tuple[str, str, int, int]]) -> None:
    app, lost = there(RunConfig(exposed_ports=exposed))
    assert [(port["name"], port["protocol"], port["port"], port["count"]) for port in app["ports"]] == wanted
    assert lost == []


@pytest.mark.parametrize("text", ["0", "65536/tcp", "http", "", "9-8/tcp", "80/tcp/udp", "80/t p", "-1", "٣", "80\n"])
def test_what_is_no_port_is_reported_and_left_out(text: str) -> None:
    app, lost = there(RunConfig(exposed_ports=(text, "443/tcp")))
    assert [port["port"] for port in app["ports"]] == [443]
    assert lost == [f"ExposedPorts {text!r} is not a port; it travels as an annotation only"]


def test_volumes_whose_names_meet_are_numbered_by_their_paths() -> None:
    app, _ = there(RunConfig(volumes=("/data", "/DATA", "/da ta", "/da.ta", "/da_ta", "data")))
    assert [(mount["name"], mount["path"]) for mount in app["mountPoints"]] == [
        ("volume-data", "/DATA"),
        ("volume-da-ta", "/da ta"),
        ("volume-da-ta-1", "/da.ta"),
        ("volume-da-ta-2", "/da_ta"),
        ("volume-data-1", "/data"),
    ]


@pytest.mark.parametrize("entry", ["1A=x", "A B=x", "=x", "Ä=x", "NOVALUE", ""])
def test_variables_that_appc_cannot_name_are_reported(entry: str) -> None:
    app, lost = there(RunConfig(env=("OK=a=b", entry)))
    assert app["environment"] == [{"name": "OK", "value": "a=b"}]
    assert len(lost) == 1
    assert repr(entry.partition("=")[0]) in lost[0]


def test_what_appc_cannot_say_is_reported_field_by_field() -> None:
    run = RunConfig(
        stop_signal="9", shell=("a",), on_build=("RUN x",), healthcheck={"Test": ["NONE"]}, args_escaped=True,
        extra={"Domainname": ""}, volumes=("",),
    )  # fmt: skip
    _, lost = there(run)
    fields = ["StopSignal", "Healthcheck", "OnBuild", "Shell", "ArgsEscaped", "Domainname", "Volumes"]
    assert [line.split()[0] for line in lost] == fields


def test_a_relative_working_directory_is_below_the_root() -> None:
    assert there(RunConfig(working_dir="srv/x"))[0]["workingDirectory"] == "/srv/x"


def test_a_huge_config_travels_without_its_carrier_and_that_is_reported() -> None:
    manifest, lost = to_aci(config(RunConfig(labels={"a": "x" * (1 << 20)})), name="a", version="1")
    assert CARRIER not in manifest.annotations
    assert len(lost) == 1
    assert "does not travel" in lost[0]


# -- platforms ---------------------------------------------------------------------------------

ARCHITECTURES = [
    ("linux/amd64", "linux", "amd64"),
    ("linux/386", "linux", "i386"),
    ("linux/arm64", "linux", "aarch64"),
    ("linux/arm64/v8", "linux", "aarch64"),
    ("linux/arm/v6", "linux", "armv6l"),
    ("linux/arm/v7", "linux", "armv7l"),
    ("linux/ppc64", "linux", "ppc64"),
    ("linux/ppc64le", "linux", "ppc64le"),
    ("linux/s390x", "linux", "s390x"),
    ("freebsd/amd64", "freebsd", "amd64"),
    ("freebsd/386", "freebsd", "i386"),
    ("freebsd/arm/v7", "freebsd", "arm"),
    ("darwin/amd64", "darwin", "x86_64"),
    ("darwin/386", "darwin", "i386"),
]


@pytest.mark.parametrize(("platform", "system", "arch"), ARCHITECTURES)
def test_platforms_there_and_back(platform: str, system: str, arch: str) -> None:
    manifest, lost = to_aci(config(platform=Platform.parse(platform)), name="a", version="7")
    assert manifest.labels == {"version": "7", "os": system, "arch": arch}
    assert lost == []
    tree = json.loads(manifest.raw)
    tree["annotations"] = []
    found, _ = back(tree)
    assert found.platform == Platform.parse(platform)


@pytest.mark.parametrize(
    "platform",
    ["linux/riscv64", "linux/loong64", "linux/mips64le", "linux/arm/v5", "linux/arm/v8", "windows/amd64",
     "freebsd/arm64", "darwin/arm64"],
)  # fmt: skip
def test_platforms_without_a_name_in_appc_are_refused(platform: str) -> None:
    with pytest.raises(Unsupported, match=platform):
        to_aci(config(platform=Platform.parse(platform)), name="a", version="1")


@pytest.mark.parametrize(("platform", "arch"), [("linux/amd64/v3", "amd64"), ("linux/arm64/v9", "aarch64")])
def test_a_later_version_of_a_known_architecture_is_reported(platform: str, arch: str) -> None:
    manifest, lost = to_aci(config(platform=Platform.parse(platform)), name="a", version="1")
    assert manifest.labels["arch"] == arch
    assert lost == [f"variant {platform[-2:]} is not part of appc; it travels as an annotation only"]


@pytest.mark.parametrize(("system", "arch"), [("linux", "armv7b"), ("linux", "aarch64_be")])
def test_architectures_without_a_goarch_are_refused(system: str, arch: str) -> None:
    with pytest.raises(Unsupported, match=arch):
        back(foreign(labels=[{"name": "os", "value": system}, {"name": "arch", "value": arch}]))
