"""What a Dockerfile may only ask for, and the command line must allow: --allow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagetool.build.entitlements import Entitlements, parse_entitlements
from imagetool.errors import DockerfileError, NotFound, UsageError
from imagetool.runtime.cdi import Device
from tests.support.workshop import Workshop


def test_words_of_allow() -> None:
    assert parse_entitlements([]) == Entitlements()
    assert parse_entitlements(["network.host,security.insecure"]) == Entitlements(network_host=True, insecure=True)
    assert parse_entitlements([], network="host").network_host
    assert parse_entitlements(["device"]).allows(Device("v/c", "d"))
    for text in ("device=v/c", "device=v/c=d"):
        assert parse_entitlements([text]).allows(Device("v/c", "d"))
        assert not parse_entitlements([text]).allows(Device("v/other", "d"))
    assert not parse_entitlements([]).allows(Device("v/c", "d"))
    assert parse_entitlements([]).allows(Device("v/c", "d", allowed=True))


@pytest.mark.parametrize("text", ["", "security.insecur", "network.host=1", "device=", "fs.read=/", "all"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--allow"):
        parse_entitlements([text])


@pytest.mark.parametrize(
    ("flag", "entitlement"), [("--network=host", "network.host"), ("--security=insecure", "security.insecure")]
)
def test_what_is_not_allowed_is_refused_before_anything_is_done(shop: Workshop, flag: str, entitlement: str) -> None:
    with pytest.raises(DockerfileError, match="is not allowed") as refused:
        shop.build(f"FROM base AS a\nRUN x\nRUN {flag} y\n")
    assert (refused.value.line, refused.value.column) == (3, 5)
    assert f"--allow {entitlement}" in refused.value.hint
    assert shop.events == [], "no step was begun"
    shop.build(f"FROM base\nRUN {flag} y\n", entitlements=parse_entitlements([entitlement]))
    shop.build(f"FROM base AS unused\nRUN {flag} y\nFROM base\nRUN x\n")


def test_triggers_of_a_base_may_not_either(shop: Workshop) -> None:
    shop.bases["child"] = shop.build("FROM base\nONBUILD RUN --security=insecure x\n")
    with pytest.raises(DockerfileError, match="is not allowed"):
        shop.build("FROM child\n")


def test_a_step_without_a_sandbox_is_another_step(shop: Workshop) -> None:
    allowed = parse_entitlements(["security.insecure"])
    shop.build("FROM base\nRUN x\n")
    shop.build("FROM base\nRUN --security=insecure x\n", entitlements=allowed)
    assert not shop.cached[-1]
    assert shop.executor.seen[-1]["linux"]["maskedPaths"] == []
    shop.build("FROM base\nRUN --security=sandbox x\n")
    assert shop.cached[-1]


def test_devices(shop: Workshop, tmp_path: Path) -> None:
    tree = {"cdiVersion": "0.6.0", "kind": "v/c", "devices": [{"name": "d", "containerEdits": {"env": ["FOO=1"]}}]}
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/a.json").write_text(json.dumps(tree))
    shop.device_folders = (tmp_path / "cdi",)
    with pytest.raises(DockerfileError, match="--device=v/c=d is not allowed"):
        shop.build("FROM base\nRUN --device=v/c x\n")
    allowed = parse_entitlements(["device=v/c"])
    shop.build("FROM base\nRUN --device=v/c --device=v/none y\n", entitlements=allowed)
    assert shop.executor.env["FOO"] == "1"
    assert any("does without" in note for note in shop.notes)
    with pytest.raises(NotFound, match=r"v/none.*there are: v/c=d") as missing:
        shop.build("FROM base\nRUN --device=v/none,required x\n", entitlements=allowed)
    assert any("Dockerfile:2" in note for note in missing.value.__notes__)
    shop.build("FROM base\nRUN y\n")
    assert not shop.cached[-1]
