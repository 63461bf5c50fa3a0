"""Caches in other places: a machine that has built nothing takes steps and cache mounts from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import imagetool, registry

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM base AS tool
COPY a /a
RUN cat /a /a > /b
FROM base
RUN --mount=type=cache,id=downloads,target=/var/cache/x echo got >> /var/cache/x/log; wc -l < /var/cache/x/log > /count
COPY --from=tool /b /c
WORKDIR /made
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "a").write_text("text\n")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


def machine(tmp_path: Path, name: str) -> Path:
    imagetool("base", "busybox", "--tag", "base", root=tmp_path / name)
    return tmp_path / name


def hits(shown: str) -> int:
    return shown.count("Using cache")


def test_a_directory_carries_the_cache_to_another_machine(tmp_path: Path, context: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    place = tmp_path / "kept"
    first = imagetool("build", "--cache-to", f"type=local,dest={place},mode=max", context, root=one)
    second = imagetool("build", "--cache-from", f"type=local,src={place}", context, root=two)
    assert (first.stdout, hits(first.stderr)) == (second.stdout, 0)
    assert hits(second.stderr) == 5
    third = imagetool("build", context, root=two)
    assert hits(third.stderr) == 5


def test_min_has_the_steps_of_the_image_only(tmp_path: Path, context: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    place = tmp_path / "kept"
    imagetool("build", "--cache-to", f"type=local,dest={place}", context, root=one)
    shown = imagetool("build", "--cache-from", f"type=local,src={place}", context, root=two).stderr
    assert hits(shown) == 3


def test_what_is_new_here_is_looked_for_elsewhere(tmp_path: Path, context: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    place = tmp_path / "kept"
    imagetool("build", context, root=two)
    (context / "a").write_text("another text\n")
    imagetool("build", "--cache-to", f"type=local,dest={place},mode=max", context, root=one)
    assert hits(imagetool("build", "--cache-from", f"type=local,src={place}", context, root=two).stderr) == 5


def test_a_registry_carries_the_cache(tmp_path: Path, context: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    with registry(tmp_path / "registry") as host:
        ref = f"{host}/project/cache:main"
        imagetool("--no-tls-verify", "build", "--cache-to", f"type=registry,ref={ref},mode=max", context, root=one)
        shown = imagetool("--no-tls-verify", "build", "--cache-from", ref, context, root=two).stderr
    assert hits(shown) == 5


def test_a_cache_that_is_not_there_or_none_is_told_and_left_out(tmp_path: Path, context: Path) -> None:
    root = machine(tmp_path, "one")
    imagetool("copy", "base", f"oci:{tmp_path}/image:cache", root=root)
    for place in (tmp_path / "none", tmp_path / "image"):
        done = imagetool("build", "--no-cache", "--cache-from", f"type=local,src={place}", context, root=root)
        assert "is left out" in done.stderr


def test_a_layer_that_is_not_what_the_cache_says_is_not_taken(tmp_path: Path, context: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    place = tmp_path / "kept"
    expected = imagetool("build", "--cache-to", f"type=local,dest={place},mode=max", context, root=one).stdout
    index = json.loads((place / "index.json").read_text())
    blobs = place / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    for layer in manifest["layers"]:
        path = blobs / layer["digest"][7:]
        path.unlink()
        path.write_bytes(b"x" * layer["size"])
    done = imagetool("build", "--cache-from", f"type=local,src={place}", context, root=two)
    assert done.stdout == expected
    assert "cannot be taken" in done.stderr


@pytest.mark.parametrize(
    "text", ["type=s3,bucket=x", "type=local", "type=local,dest=x,mode=most", "type=local,src=x,a=b"]
)
def test_places_that_cannot_be_are_refused(tmp_path: Path, context: Path, text: str) -> None:
    done = imagetool("build", "--cache-to", text, context, root=tmp_path / "store", check=False)
    assert done.returncode == 2
    assert "--cache-to" in done.stderr


def test_cache_mounts_are_listed_exported_imported_and_pruned(tmp_path: Path, context: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    imagetool("build", context, root=one)
    (listed,) = json.loads(imagetool("cache", "ls", "--json", root=one).stdout)
    assert (listed["id"], listed["size"]) == ("downloads", 4)
    assert "downloads" in imagetool("cache", "ls", root=one).stdout
    assert imagetool("cache", "export", f"oci:{tmp_path}/mounts", root=one).stdout == "downloads\n"
    assert imagetool("cache", "import", f"oci:{tmp_path}/mounts", root=two).stdout == "downloads\n"
    imagetool("build", "-t", "x", context, root=two)
    assert [path.read_text() for path in (two / "cache-mounts").glob("*/log")] == ["got\ngot\n"]
    imagetool("cache", "import", f"oci:{tmp_path}/mounts", root=two)
    assert [path.read_text() for path in (two / "cache-mounts").glob("*/log")] == ["got\n"]
    assert "1 cache mount of" in imagetool("cache", "prune", root=two).stdout
    assert json.loads(imagetool("cache", "ls", "--json", root=two).stdout) == []
    assert hits(imagetool("build", "--progress", "plain", context, root=two).stderr) == 0


def test_what_is_not_there_or_not_a_cache_is_said(tmp_path: Path, context: Path) -> None:
    root = machine(tmp_path, "one")
    assert imagetool("cache", "export", f"oci:{tmp_path}/m", root=root, check=False).returncode == 3
    assert imagetool("cache", "prune", "--id", "none", root=root, check=False).returncode == 3
    assert imagetool("cache", "export", root=root, check=False).returncode == 2
    imagetool("copy", "base", f"oci:{tmp_path}/image:x", root=root)
    assert imagetool("cache", "import", f"oci:{tmp_path}/image:x", root=root, check=False).returncode == 6


def test_an_image_carries_its_own_cache(tmp_path: Path, context: Path) -> None:
    one, two, three = (machine(tmp_path, name) for name in ("one", "two", "three"))
    with registry(tmp_path / "registry") as host:
        ref = f"{host}/project/app:main"
        output = f"type=registry,ref={ref}"
        first = imagetool("--no-tls-verify", "build", "--cache-to", "type=inline", "-o", output, context, root=one)
        again = imagetool("--no-tls-verify", "build", "--cache-from", ref, context, root=two)
        assert hits(first.stderr) == 0
        assert hits(again.stderr) == 3, "the steps of the other stage are not those of the image"
        # Another compression is another layer with the same content.
        copied = ("copy", "--compression", "zstd", f"docker://{ref}", f"docker://{ref}-zstd")
        imagetool("--no-tls-verify", *copied, root=one)
        shown = imagetool("--no-tls-verify", "build", "--cache-from", f"{ref}-zstd", context, root=three).stderr
        assert hits(shown) == 3
        plain = imagetool("--no-tls-verify", "build", "-o", f"type=registry,ref={ref}-none", context, root=one)
        shown = imagetool(
            "--no-tls-verify", "build", "--no-cache", "--cache-from", f"{ref}-none", context, root=two
        ).stderr
        assert "has no build cache" in shown
    assert first.stdout != plain.stdout, "the cache is part of the image"
    argument = imagetool("build", "--build-arg", "BUILDKIT_INLINE_CACHE=1", context, root=one)
    assert argument.stdout == first.stdout
    assert "no ARG declares" not in argument.stderr


def test_a_base_with_a_cache_does_not_give_it_on(tmp_path: Path, context: Path) -> None:
    root = machine(tmp_path, "one")
    imagetool("build", "--cache-to", "type=inline", "-t", "first", context, root=root)
    assert b"buildcache" in imagetool("inspect", "--config", "first", root=root).stdout.encode()
    (context / "Dockerfile").write_text("FROM first\nENV a=1\n")
    imagetool("build", "-t", "second", context, root=root)
    assert "buildcache" not in imagetool("inspect", "--config", "second", root=root).stdout


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--cache-from", "type=inline"),
        ("--cache-to", "type=inline,mode=max"),
        ("--cache-to", "type=inline,ref=x"),
        ("--cache-to", "type=gha"),
    ],
)
def test_inline_is_to_write_and_has_no_options(tmp_path: Path, context: Path, option: str, text: str) -> None:
    done = imagetool("build", option, text, context, root=tmp_path / "store", check=False)
    assert done.returncode == 2
    assert f"{option} '{text}'" in done.stderr
