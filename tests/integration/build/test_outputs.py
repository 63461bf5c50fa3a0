"""Several outputs of one build, a registry among them; the moment of the build on the command line."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.command import imagetool, registry


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY a /a\nCOPY a /b\nENV x=y z=w\nLABEL l=1\n")
    (folder / "a").write_text("text")
    return folder


def test_all_outputs_are_written_and_say_the_same(tmp_path: Path, context: Path) -> None:
    root = tmp_path / "store"
    with registry(tmp_path / "registry") as host:
        outputs = [
            f"type=oci,dest={tmp_path}/oci",
            f"type=docker,dest={tmp_path}/d.tar",
            f"type=tar,dest={tmp_path}/t.tar",
        ]
        outputs += [f"{tmp_path}/folder", f"type=registry,ref={host}/p/x:1", f"type=image,name={host}/p/x:2,push=true"]
        options = [word for output in outputs for word in ("-o", output)]
        digest = imagetool("--no-tls-verify", "build", "-t", "x", *options, context, root=root).stdout.strip()
        for tag in ("1", "2"):
            shown = imagetool("--no-tls-verify", "inspect", f"docker://{host}/p/x:{tag}", root=root).stdout
            assert digest in shown
    assert (tmp_path / "folder/a").read_text() == "text"
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert {"a", "b"} <= set(tar.getnames())
    for place in (f"oci:{tmp_path}/oci:x", f"docker-archive:{tmp_path}/d.tar"):
        assert digest in imagetool("inspect", place, root=root).stdout


@pytest.mark.parametrize(
    "text", ["type=registry", "type=registry,ref=x,tar=true", "type=image,name=x", "type=rgistry,ref=x"]
)
def test_outputs_that_cannot_be_are_refused(tmp_path: Path, context: Path, text: str) -> None:
    assert imagetool("build", "-o", text, context, root=tmp_path / "store", check=False).returncode == 2


def test_the_config_is_as_the_options_say(tmp_path: Path, context: Path) -> None:
    root = tmp_path / "store"
    options = ["--timestamp", "1000000000", "--unsetenv", "x", "--unsetlabel", "l", "--annotation", "a=b", "--squash"]
    for _ in range(2):
        imagetool("build", "-t", "x", *options, context, root=root)
        config = json.loads(imagetool("inspect", "--config", "x", root=root).stdout)
        assert config["created"] == "2001-09-09T01:46:40Z"
        assert [entry for entry in config["config"]["Env"] if not entry.startswith("PATH=")] == ["z=w"]
        assert not config["config"].get("Labels")
        assert len(config["rootfs"]["diff_ids"]) == 1
        assert json.loads(imagetool("inspect", "--raw", "x", root=root).stdout)["annotations"] == {"a": "b"}
    assert imagetool("build", "--timestamp", "soon", context, root=root, check=False).returncode == 2
