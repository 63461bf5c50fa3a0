"""What is in the local store: listed whatever it is, and known by name, digest and image ID."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from imagetool.content.layout import LayoutStore
from imagetool.content.memory import MemoryStore
from imagetool.content.store import push_bytes
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.manifest import Index, Manifest
from imagetool.oci.platform import Platform
from imagetool.transfer import copy
from tests.support.command import imagetool
from tests.support.images import add_image, add_index


def built(tmp_path: Path, *tags: str, text: str = "FROM scratch\nENV a=1\n") -> str:
    """Build an image; return the ID that is printed."""
    (tmp_path / "Dockerfile").write_text(text)
    names = [word for tag in tags for word in ("-t", tag)]
    return imagetool("build", "-q", *names, tmp_path, root=tmp_path / "store").stdout.strip()


def put(root: Path, memory: MemoryStore, descriptor: Descriptor, name: str) -> None:
    copy(memory, LayoutStore.create(root / "layout"), descriptor, tags=(name,))


def artifact(memory: MemoryStore) -> Descriptor:
    config = push_bytes(memory, b"{}", "application/vnd.cncf.helm.config.v1+json")
    chart = push_bytes(memory, b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    return push_bytes(memory, Manifest.make(config, [chart]).raw, mediatype.OCI_MANIFEST)


def test_whatever_the_store_has_is_listed(tmp_path: Path) -> None:
    """A chart, an image of another machine or an empty index must not hide the others."""
    root, memory = tmp_path / "store", MemoryStore()
    put(root, memory, artifact(memory), "chart:1")
    put(root, memory, add_index(memory, ["linux/s390x", "linux/riscv64"], layers=1), "foreign:1")
    put(root, memory, push_bytes(memory, Index.make([]).raw, mediatype.OCI_INDEX), "empty:1")
    put(root, memory, add_image(memory, layers=2, size=10), "app:1")
    listed = {entry["name"]: entry for entry in json.loads(imagetool("images", "--json", root=root).stdout)}
    assert list(listed) == ["chart:1", "foreign:1", "empty:1", "app:1"]
    assert {frozenset(entry) for entry in listed.values()} == {frozenset(("name", "digest", "id", "created", "size"))}
    assert listed["chart:1"]["id"] == listed["chart:1"]["digest"]
    assert listed["chart:1"]["size"] == len(b"{}chart")
    assert listed["app:1"]["size"] == 20
    assert listed["foreign:1"]["size"] == 1000
    rows = imagetool("images", root=root).stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["NAME", *listed]


def test_lists_can_be_narrowed_and_bare(tmp_path: Path) -> None:
    identity = built(tmp_path, "team/app:1", "team/app:2", "other")
    root = tmp_path / "store"

    def names(*args: str) -> list[str]:
        return [row.split()[0] for row in imagetool("images", "-n", *args, root=root).stdout.splitlines()]

    assert names() == ["team/app:1", "team/app:2", "other:latest"]
    assert names("team/app") == ["team/app:1", "team/app:2"]
    assert names("docker.io/team/app:2") == ["team/app:2"]
    assert names("other") == ["other:latest"]
    assert names("nowhere") == []
    assert imagetool("images", "-q", root=root).stdout == identity[7:19] + "\n"
    assert imagetool("images", "-q", "--no-trunc", root=root).stdout == identity + "\n"


def test_the_id_that_a_build_prints_names_the_image(tmp_path: Path) -> None:
    identity, root = built(tmp_path), tmp_path / "store"
    for text in (identity, identity[7:], identity[7:19], identity[:19]):
        assert json.loads(imagetool("inspect", text, root=root).stdout)["id"] == identity
    assert imagetool("tag", identity[7:19], "named:1", "named:2", root=root).stdout == "named:1\nnamed:2\n"
    assert json.loads(imagetool("inspect", "named:2", root=root).stdout)["id"] == identity


def test_a_digest_pins_an_image_that_is_here_by_another_name(tmp_path: Path) -> None:
    """FROM app@sha256:… needs no registry once app:1 has been pulled."""
    built(tmp_path, "app:1")
    root = tmp_path / "store"
    digest = json.loads(imagetool("inspect", "app:1", root=root).stdout)["digest"]
    for name in (f"app@{digest}", f"app:1@{digest}", f"h.example/team/app@{digest}"):
        assert json.loads(imagetool("inspect", name, root=root).stdout)["digest"] == digest
    (tmp_path / "Dockerfile").write_text(f"FROM app:1@{digest}\nENV b=1\n")
    for _ in range(2):  # the second is answered from the record of the first
        imagetool("build", "--pull=never", tmp_path, root=root)
    other = imagetool("inspect", f"app:1@sha256:{'0' * 64}", root=root, check=False)
    assert other.returncode == 3


def test_a_name_goes_before_what_begins_a_digest(tmp_path: Path) -> None:
    one, root = built(tmp_path, "one"), tmp_path / "store"
    built(tmp_path, one[7:19], text="FROM scratch\nENV a=2\n")
    assert json.loads(imagetool("inspect", one[7:19], root=root).stdout)["id"] != one
    assert json.loads(imagetool("inspect", one[:19], root=root).stdout)["id"] == one


@pytest.mark.parametrize("command", [["run"], ["save", "-o", "x.tar"], ["from"], ["pull"]])
def test_an_id_that_is_not_here_is_asked_of_no_registry(tmp_path: Path, command: list[str]) -> None:
    done = imagetool(*command, "sha256:" + "ab" * 32, root=tmp_path / "store", check=False, cwd=tmp_path)
    assert done.returncode == 3
    assert "no image 'sha256:abab" in done.stderr
    assert "docker.io" not in done.stderr


def test_a_beginning_that_fits_several_images_is_not_guessed(tmp_path: Path) -> None:
    memory, root = MemoryStore(), tmp_path / "store"
    made = (add_image(memory, layers=0, seed=seed, platform=Platform("linux", f"a{seed}")) for seed in range(5000))
    known: dict[str, Descriptor] = {}
    for found in made:  # among some hundreds, two begin with the same four digits
        if found.digest.hex[:4] in known:
            break
        known[found.digest.hex[:4]] = found
    put(root, memory, found, "one:1")
    put(root, memory, known[found.digest.hex[:4]], "two:1")
    done = imagetool("inspect", found.digest.hex[:4], root=root, check=False)
    assert done.returncode == 3
    assert f"several images have IDs or digests that begin with '{found.digest.hex[:4]}'" in done.stderr
    assert json.loads(imagetool("inspect", found.digest.hex[:40], root=root).stdout)["digest"] == str(found.digest)


def test_removing_by_id_takes_one_name_or_is_forced(tmp_path: Path) -> None:
    identity, root = built(tmp_path, "a", "b"), tmp_path / "store"
    refused = imagetool("rmi", identity[7:19], root=root, check=False)
    assert refused.returncode == 2
    assert "several names: a:latest, b:latest; --force removes all" in refused.stderr
    assert imagetool("rmi", "-f", identity[7:19], "nowhere", root=root).stdout == "a:latest\nb:latest\n"
    assert imagetool("images", "-q", root=root).stdout == ""
    again = built(tmp_path, "a")
    assert imagetool("rmi", again[7:19], root=root).stdout == "a:latest\n"


def test_all_images_can_be_removed(tmp_path: Path) -> None:
    built(tmp_path, "a", "b")
    built(tmp_path, text="FROM scratch\nENV a=2\n")
    root = tmp_path / "store"
    assert imagetool("rmi", "--all", "a", root=root, check=False).returncode == 2
    assert imagetool("rmi", root=root, check=False).returncode == 2
    assert len(imagetool("rmi", "--all", root=root).stdout.splitlines()) == 3
    assert imagetool("images", "-n", root=root).stdout == ""
    assert imagetool("rmi", "--all", root=root).stdout == ""


def test_history_shows_steps_in_full_when_asked(tmp_path: Path) -> None:
    long = "x" * 500
    built(tmp_path, "a", text=f"FROM scratch\nLABEL a={long}\n")
    assert long not in imagetool("history", "a", root=tmp_path / "store").stdout
    assert long in imagetool("history", "--no-trunc", "a", root=tmp_path / "store").stdout


# -- archives ----------------------------------------------------------------------------------


def piped(root: Path, save: list[str], load: list[str], through: list[str] | None = None) -> str:
    """Save from one store and load into another through a pipe, or through a program; return what load prints."""
    program = [sys.executable, "-m", "imagetool", "--root"]
    saving = subprocess.Popen([*program, str(root / "store"), "save", *save], stdout=subprocess.PIPE)
    between = subprocess.Popen(through, stdin=saving.stdout, stdout=subprocess.PIPE) if through else saving
    command = [*program, str(root / "other"), "load", *load]
    done = subprocess.run(command, stdin=between.stdout, capture_output=True, text=True, check=True)
    assert (saving.wait(60), between.wait(60)) == (0, 0)
    return done.stdout


@pytest.mark.parametrize("through", [None, ["gzip"], ["xz", "-0"]], ids=["plain", "gzip", "xz"])
def test_images_go_from_store_to_store_through_a_pipe(tmp_path: Path, through: list[str] | None) -> None:
    one = built(tmp_path, "team/one:1", "again:1")
    two = built(tmp_path, "two", text="FROM scratch\nENV a=2\n")
    printed = piped(tmp_path, ["team/one:1", "two", "again:1"], ["-q"], through)
    assert sorted(printed.split()) == ["again:1", "team/one:1", "two:latest"]
    other = json.loads(imagetool("images", "--json", root=tmp_path / "other").stdout)
    ours = json.loads(imagetool("images", "--json", root=tmp_path / "store").stdout)
    assert sorted(map(str, other)) == sorted(map(str, ours))  # digests, too
    assert {entry["id"] for entry in other} == {one, two}


def test_an_archive_of_docker_is_loaded_with_all_its_images(tmp_path: Path) -> None:
    """Without the layout that lies beside it in ours, as docker before version 25 and podman write it."""
    root, archive, plain = tmp_path / "store", tmp_path / "a.tar", tmp_path / "plain.tar"
    one = built(tmp_path, "one:1", "uno:1")
    two = built(tmp_path, text="FROM scratch\nENV a=2\n")
    imagetool("save", "-o", archive, "one:1", two, "uno:1", root=root)
    with tarfile.open(archive) as source, tarfile.open(plain, "w") as target:
        for member in source:
            if member.name not in ("oci-layout", "index.json"):
                target.addfile(member, source.extractfile(member) if member.isfile() else None)
    printed = imagetool("load", "--input", plain, root=tmp_path / "other").stdout.split()
    assert printed[:2] == ["one:1", "uno:1"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", printed[2])
    found = json.loads(imagetool("images", "--json", root=tmp_path / "other").stdout)
    assert {(entry["name"], entry["id"]) for entry in found} == {("one:1", one), ("uno:1", one), ("<none>", two)}


def test_stdin_is_read_from_where_it_is(tmp_path: Path) -> None:
    built(tmp_path, "one:1")
    imagetool("save", "-o", tmp_path / "x", "one:1", root=tmp_path / "store")
    (tmp_path / "y").write_bytes(b"a line before it\n" + (tmp_path / "x").read_bytes())
    with open(tmp_path / "y", "rb", buffering=0) as file:
        file.readline()
        command = [sys.executable, "-m", "imagetool", "--root", tmp_path / "other", "load", "-q"]
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "one:1\n"), done.stderr


def test_several_images_are_one_archive_but_no_aci(tmp_path: Path) -> None:
    built(tmp_path, "a", "b")
    done = imagetool("save", "--format", "aci", "-o", tmp_path / "x", "a", "b", root=tmp_path / "store", check=False)
    assert done.returncode == 2
    assert "an ACI is one image, not 2" in done.stderr


@pytest.mark.parametrize("content", [b"", b"no tar" * 1000], ids=["empty", "noise"])
def test_what_is_no_archive_is_not_loaded(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    done = imagetool("load", "-i", tmp_path / "x", root=tmp_path / "store", check=False)
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
    missing = imagetool("load", "-i", tmp_path / "y", root=tmp_path / "store", check=False)
    assert missing.returncode == 3


def test_a_quiet_copy_says_nothing(tmp_path: Path) -> None:
    built(tmp_path, "one:1", text="FROM scratch\nCOPY Dockerfile /\n")
    done = imagetool("copy", "-q", "one:1", f"oci:{tmp_path}/layout:1", root=tmp_path / "store")
    assert (done.stdout, done.stderr) == ("", "")
    loud = imagetool("copy", "--progress", "plain", "one:1", f"oci:{tmp_path}/layout2:1", root=tmp_path / "store")
    assert loud.stdout.startswith("sha256:")
    assert loud.stderr != ""


@pytest.mark.parametrize("place", ["oci:x", "docker-archive:x.tar", "dir:x", "containers-storage:x"])
def test_what_is_no_registrys_is_not_pulled(tmp_path: Path, place: str) -> None:
    done = imagetool("pull", place, root=tmp_path / "store", check=False)
    assert done.returncode == 2
    assert re.search("`imagetool copy` takes it|`podman save NAME . imagetool load`", done.stderr)


def test_the_images_of_an_index_are_no_images_without_a_name(tmp_path: Path) -> None:
    """One that was built by itself before stays, and so does a name that another gave it."""
    root = tmp_path / "store"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV a=1\n")
    imagetool("build", "--platform", "linux/s390x", tmp_path, root=root)
    imagetool("build", "--platform", "linux/riscv64", "-t", "alone", tmp_path, root=root)
    for _ in range(2):
        imagetool("build", "--platform", "linux/amd64,linux/s390x,linux/riscv64", "-t", "all", tmp_path, root=root)
    names = [entry["name"] for entry in json.loads(imagetool("images", "--json", root=root).stdout)]
    assert sorted(names) == ["<none>", "all:latest", "alone:latest"]
    imagetool("rmi", "alone", root=root)
    checks = json.loads(imagetool("verify", "--json", "all", root=root).stdout)
    assert [check["what"] for check in checks].count("manifest") == 3
