"""A build for several platforms makes an index; cache mounts may start from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import imagetool, registry


def write(tmp_path: Path, text: str) -> Path:
    context = tmp_path / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(text)
    return context


def test_several_platforms_make_an_index(tmp_path: Path) -> None:
    root = tmp_path / "store"
    context = write(tmp_path, "FROM scratch\nARG TARGETARCH\nCOPY <<x /arch\n$TARGETARCH\nx\n")
    wanted = "linux/amd64,linux/arm64,linux/arm/v7"
    with registry(tmp_path / "registry") as host:
        options = [
            "-t",
            "x",
            "--platform",
            wanted,
            "-o",
            f"type=oci,dest={tmp_path}/oci",
            "-o",
            f"type=registry,ref={host}/x:1",
        ]
        digest = imagetool(
            "--no-tls-verify", "build", *options, "--metadata-file", tmp_path / "meta", context, root=root
        ).stdout.strip()
        pushed = json.loads(imagetool("--no-tls-verify", "inspect", "--raw", f"docker://{host}/x:1", root=root).stdout)
    index = json.loads(imagetool("inspect", "--raw", "x", root=root).stdout)
    assert index == pushed
    names = [
        "/".join(entry["platform"].get(part, "") for part in ("os", "architecture", "variant"))
        for entry in index["manifests"]
    ]
    assert [name.strip("/") for name in names] == wanted.split(",")
    metadata = json.loads((tmp_path / "meta").read_text())
    assert metadata["containerimage.digest"] == digest
    assert "containerimage.config.digest" not in metadata  # it is an index
    assert metadata["image.name"] == "docker.io/library/x:latest"
    for platform in wanted.split(","):
        imagetool("unpack", "--platform", platform, "x", tmp_path / platform.replace("/", "-"), root=root)
        assert (tmp_path / platform.replace("/", "-") / "rootfs/arch").read_text().strip() == platform.split("/")[1]
    assert imagetool("build", *options[:4], context, root=root).stdout.strip() == digest


@pytest.mark.parametrize(
    "options", [["--platform", "linux/amd64,linux/amd64"], ["--platform", "linux/amd64,windows/*"]]
)
def test_platforms_that_cannot_be_are_refused(tmp_path: Path, options: list[str]) -> None:
    done = imagetool("build", *options, write(tmp_path, "FROM scratch\n"), root=tmp_path / "store", check=False)
    assert done.returncode == 2


@pytest.mark.root
def test_a_cache_mount_starts_from_files_and_never_from_the_hosts(tmp_path: Path) -> None:
    root = tmp_path / "store"
    imagetool("base", "busybox", root=root)
    mount = "--mount=type=cache,target=/c,id={id},from=seed,source={source}"
    text = (
        "FROM busybox AS seed\nRUN mkdir /s && echo seeded > /s/f && ln -s ../../../../../.. /s/up && ln -s / /s/root\n"
        "FROM busybox\nRUN {mount} cat /c/f && echo more >> /c/f\nRUN {mount} wc -l < /c/f > /count\n"
    )
    context = write(tmp_path, text.format(mount=mount.format(id="a", source="/s")))
    imagetool("build", "-t", "x", context, root=root)
    assert [path.read_text() for path in (root / "cache-mounts").glob("*/f")] == ["seeded\nmore\n"]
    (tmp_path / "outside").write_text("outside")
    for number, source in enumerate(("/s/up", "/s/root", "../..", f"/s/up{tmp_path}")):
        run = f"RUN {mount.format(id=number, source=source)} ! grep -q outside /c/outside /c{tmp_path}/outside\n"
        done = imagetool(
            "build", write(tmp_path, text.split("FROM busybox\n")[0] + "FROM busybox\n" + run), root=root, check=False
        )
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert "not found" in done.stderr
