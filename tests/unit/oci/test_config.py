"""Image configs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagetool.errors import InvalidDocument
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform

WORDS = st.lists(st.text("ab é", max_size=3), max_size=3).map(tuple)
RUNS = st.builds(
    RunConfig,
    user=st.text("a0:", max_size=4),
    env=st.lists(st.text("AB", min_size=1, max_size=2).map(lambda name: f"{name}=x=y"), max_size=3).map(tuple),
    entrypoint=st.none() | WORDS,
    cmd=st.none() | WORDS,
    working_dir=st.text("/a", max_size=3),
    exposed_ports=st.sets(st.sampled_from(["80/tcp", "53/udp"])).map(lambda ports: tuple(sorted(ports))),
    volumes=st.sets(st.sampled_from(["/a", "/b"])).map(lambda paths: tuple(sorted(paths))),
    labels=st.dictionaries(st.text("l.", min_size=1, max_size=3), st.text(max_size=3), max_size=3),
    stop_signal=st.sampled_from(["", "SIGTERM"]),
    shell=st.none() | WORDS,
    on_build=WORDS,
    healthcheck=st.none() | st.just({"Test": ["NONE"]}),
    args_escaped=st.booleans(),
    extra=st.dictionaries(st.sampled_from(["Hostname", "x"]), st.integers(-(2**63), 2**63), max_size=2),
)


def config(**fields: Any) -> bytes:
    tree = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}, **fields}
    return json.dumps({key: value for key, value in tree.items() if value is not ...}).encode()


@given(RUNS)
def test_execution_parameters_survive(run: RunConfig) -> None:
    made = ImageConfig.make(platform=Platform(), run=run, diff_ids=[], history=[], created="")
    assert made.run == run
    assert ImageConfig.parse(made.raw) == made


def test_an_empty_command_is_not_an_unset_one() -> None:
    assert RunConfig(cmd=()).tree() == {"Cmd": ()}
    assert RunConfig().tree() == {}
    read = RunConfig.read({"Cmd": [], "Entrypoint": None}, what="doc")
    assert (read.cmd, read.entrypoint) == ((), None)


def test_environment_entries_without_a_value_take_nothing_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    run = RunConfig(env=("A=1", "SECRET", "B=2=3"))
    assert run.environment == {"A": "1", "B": "2=3"}
    assert run.with_env("A", "9") == ("A=9", "SECRET", "B=2=3")
    assert run.with_env("C", "") == ("A=1", "SECRET", "B=2=3", "C=")


def test_parts_make_a_config_that_says_them() -> None:
    diff_ids = [Digest.of(b"1"), Digest.of(b"2")]
    history = [History("2020-01-01T00:00:00Z", "one"), History(empty_layer=True), History(comment="two")]
    made = ImageConfig.make(
        platform=Platform("linux", "arm", "v7"),
        run=RunConfig(user="u"),
        diff_ids=diff_ids,
        history=history,
        created="2020-01-01T00:00:00Z",
        author="me",
        extra={"x": 1, "author": "never"},
    )
    tree = json.loads(made.raw)
    assert (tree["x"], tree["author"], tree["variant"]) == (1, "me", "v7")
    assert made.diff_ids == tuple(diff_ids)
    assert made.history == tuple(history)
    assert made.descriptor.digest == Digest.of(made.raw)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (config(rootfs=...), "$.rootfs is missing"),
        (config(rootfs={"type": "x", "diff_ids": []}), "$.rootfs.type"),
        (config(rootfs={"diff_ids": ["sha256:1"]}), "not a supported digest"),
        (config(history=[{"created_by": "x"}]), "$.history tells of 1 layers but $.rootfs.diff_ids has 0"),
        (config(history=[{"empty_layer": 1}]), "$.history[0].empty_layer is an integer"),
        (config(created="yesterday"), "$.created is not an RFC 3339"),
        (config(config=[]), "$.config is an array"),
        (config(config={"Env": "A=1"}), "$.config.Env is a string"),
        (config(config={"Env": [1]}), "$.config.Env[0] is an integer"),
        (config(config={"Labels": {"a": None}}), "$.config.Labels.a is null"),
        (config(config={"ExposedPorts": []}), "$.config.ExposedPorts is an array"),
        (config(os=1), "$.os is an integer"),
    ],
)
def test_what_is_refused_and_where(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        ImageConfig.parse(raw, what="doc")
    assert text in str(refused.value)


def test_what_other_tools_leave_null_or_out_is_read() -> None:
    found = ImageConfig.parse(config(config=None, history=None, created=None, author=None))
    assert (found.run, found.history, found.created) == (RunConfig(), (), "")
