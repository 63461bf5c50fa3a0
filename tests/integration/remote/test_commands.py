"""What the commands ask of a registry, read from our server's access log."""

from __future__ import annotations

import json
import re
from pathlib import Path

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.transfer import copy
from tests.integration.registry.test_server import Server, serving
from tests.support.command import imagetool
from tests.support.images import add_image


def asked(server: Server, since: int) -> tuple[list[str], int]:
    """Return the requests after the first `since` as "METHOD kind status", and how many there are now."""
    found = re.findall(r'"(\w+) /v2/\S+?/(manifests|blobs/uploads|blobs)/\S* HTTP/1.1" (\d+)', server.log)
    return [" ".join(parts) for parts in found[since:]], len(found)


def test_a_push_and_a_pull_ask_no_more_than_they_must(tmp_path: Path) -> None:
    layers = 5
    source = MemoryStore()
    root = add_image(source, layers=layers, size=50_000)
    copy(source, LayoutStore.create(tmp_path / "layout"), root, tags=["v1"])
    with serving(tmp_path / "r") as server:
        host = f"127.0.0.1:{server.port}"
        imagetool("copy", f"oci:{tmp_path / 'layout'}:v1", f"docker://{host}/team/base:v1", root=tmp_path / "one")
        pushed, so_far = asked(server, 0)
        assert len(pushed) <= 3 * (layers + 1) + 2  # and the HEAD that asks whether the tag is up to date
        imagetool("copy", f"oci:{tmp_path / 'layout'}:v1", f"docker://{host}/team/base:v1", root=tmp_path / "one")
        again, so_far = asked(server, so_far)
        assert again == ["HEAD manifests 200"]
        imagetool("pull", f"{host}/team/base:v1", root=tmp_path / "two")
        pulled, so_far = asked(server, so_far)
        assert sorted(pulled) == ["GET blobs 200"] * (layers + 1) + ["GET manifests 200"]
        imagetool("pull", f"{host}/team/base:v1", root=tmp_path / "two")
        assert asked(server, so_far)[0] == ["GET manifests 200"]


def test_what_was_pulled_is_mounted_when_it_is_pushed_to_a_sibling(tmp_path: Path) -> None:
    source = MemoryStore()
    root = add_image(source, layers=2, size=50_000)
    copy(source, LayoutStore.create(tmp_path / "layout"), root, tags=["v1"])
    with serving(tmp_path / "r") as server:
        host = f"127.0.0.1:{server.port}"
        imagetool("copy", f"oci:{tmp_path / 'layout'}:v1", f"docker://{host}/team/base:v1", root=tmp_path / "one")
        imagetool("pull", f"{host}/team/base:v1", root=tmp_path / "two")
        _, so_far = asked(server, 0)
        imagetool("push", f"{host}/team/base:v1", f"{host}/team/app:v1", root=tmp_path / "two")
        found, so_far = asked(server, so_far)
        assert found.count("POST blobs/uploads 201") == 3
        assert not any(request.startswith(("PUT blobs", "PATCH")) for request in found)
        fresh = tmp_path / "three"
        imagetool("copy", f"docker://{host}/team/base:v1", f"docker://{host}/team/copy:v1", root=fresh)
        found, _ = asked(server, so_far)
        assert found.count("POST blobs/uploads 201") == 3
        assert "GET blobs 200" not in found


def test_tags_are_listed_and_an_image_is_deleted_with_those_that_mean_it(tmp_path: Path) -> None:
    source = MemoryStore()
    layout = LayoutStore.create(tmp_path / "layout")
    for seed, tag in ((0, "v1"), (1, "v2")):
        copy(source, layout, add_image(source, layers=1, seed=seed), tags=[tag])
    with serving(tmp_path / "r") as server:
        name = f"127.0.0.1:{server.port}/team/app"
        for tag, place in (("v1", "v1"), ("v2", "v2"), ("v1", "stable")):
            imagetool("copy", f"oci:{tmp_path / 'layout'}:{tag}", f"docker://{name}:{place}", root=tmp_path / "s")
        assert imagetool("tags", name, root=tmp_path / "s").stdout.split() == ["stable", "v1", "v2"]
        listed = imagetool("tags", "--json", f"docker://{name}", root=tmp_path / "s").stdout
        assert json.loads(listed) == ["stable", "v1", "v2"]
        gone = imagetool("delete", f"docker://{name}:v1", root=tmp_path / "s").stdout.strip()
        assert gone == str(layout.resolve("v1").digest)
        assert imagetool("tags", name, root=tmp_path / "s").stdout.split() == ["v2"]
        for wrong, code, words in (
            (("delete", f"docker://{name}:v1"), 3, "404"),
            (("delete", f"{name}:v2"), 2, "write docker://NAME"),
            (("tags", f"{name}:v2"), 2, "name the repository alone"),
            (("tags", f"{name}x"), 3, "NAME_UNKNOWN"),
        ):
            done = imagetool(*wrong, root=tmp_path / "s", check=False)
            assert (done.returncode, words in done.stderr) == (code, True), done.stderr
