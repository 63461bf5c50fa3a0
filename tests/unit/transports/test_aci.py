"""aci: images written as ACIs, ACIs of others, and archives that are refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetool.content.memory import MemoryStore
from imagetool.errors import ImagetoolError
from imagetool.oci.config import RunConfig
from imagetool.transports import find
from imagetool.transports.base import Surroundings
from tests.support.acicheck import check_aci
from tests.unit.transports.conftest import CODECS, Notes, got, image, put


def test_an_aci_is_strictly_valid_and_the_same_every_time(around: Surroundings, tmp_path: Path, notes: Notes) -> None:
    memory = MemoryStore()
    before = image(memory, "a", "b", run=RunConfig(cmd=("x",), stop_signal="9", exposed_ports=("http",)))
    identities = set()
    for name in ("My App.aci", "again/My App.aci"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        put(f"aci:{tmp_path}/{name}", memory, before.descriptor, around)
        identity, manifest = check_aci(tmp_path / name)
        identities.add((identity, (tmp_path / name).read_bytes()))
        assert manifest["name"] == "my-app"
    assert len(identities) == 1
    assert [line.split(":")[1].split()[0] for line in notes[:2]] == ["StopSignal", "ExposedPorts"]


def aci(path: Path, members: list[tuple[str, bytes, bytes | str]], squeeze: Callable[[bytes], bytes] = bytes) -> None:
    """Write an ACI of (name, type, content or target) entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, what in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(what, str):
                member.linkname = what
            else:
                member.size = len(what)
            tar.addfile(member, io.BytesIO(what) if isinstance(what, bytes) and kind == tarfile.REGTYPE else None)
    path.write_bytes(squeeze(out.getvalue()))


MANIFEST = json.dumps(
    {"acKind": "ImageManifest", "acVersion": "0.8.1", "name": "a--b",
     "app": {"user": "0", "group": "0", "exec": ["/f"]},
     "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}]}
).encode()  # fmt: skip
FILE, DIR, LINK, SYMLINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
ROOTFS: list[tuple[str, bytes, bytes | str]] = [("rootfs", DIR, b""), ("rootfs/f", FILE, b"text")]
NOTE: tuple[str, bytes, bytes | str] = ("manifest", FILE, MANIFEST)


@pytest.mark.parametrize("squeeze", CODECS)
@pytest.mark.parametrize("members", [[NOTE, *ROOTFS], [*ROOTFS, NOTE],
    [("./", DIR, b""), ("./manifest", FILE, MANIFEST), ("./rootfs/", DIR, b""), ("./rootfs/f", FILE, b"text")],
    [ROOTFS[1], ROOTFS[0], NOTE]],
    ids=["manifest first", "manifest last", "dots", "rootfs late"])  # fmt: skip
def test_acis_of_others(
    around: Surroundings,
    tmp_path: Path,
    members: list[tuple[str, bytes, bytes | str]],
    squeeze: Callable[[bytes], bytes],
) -> None:
    aci(tmp_path / "x.aci", members, squeeze)
    found, files = got(f"aci:{tmp_path}/x.aci", around)
    assert files == {"f": "text"}
    assert found.config.run.entrypoint == ("/f",)


#: What actool makes of each, and what it is for us: with every row of the reference that is about the archive.
ROWS: list[tuple[str, list[tuple[str, bytes, bytes | str]], bool, str]] = [
    ("two rootfs entries", [NOTE, *ROOTFS, ROOTFS[0]], True, "there twice"),
    ("a third name", [NOTE, *ROOTFS, ("rootfsfoo", FILE, b"")], True, "neither the manifest nor below rootfs"),
    ("a hard link to the manifest", [NOTE, *ROOTFS, ("rootfs/m", LINK, "manifest")], True, "outside rootfs"),
    ("a way up that stays", [NOTE, *ROOTFS, ("rootfs/a/../b", FILE, b"")], True, "'..'"),
    ("a duplicate path", [NOTE, *ROOTFS, ROOTFS[1]], False, "there twice"),
    ("a duplicate directory", [NOTE, *ROOTFS, ("rootfs/d", DIR, b""), ("rootfs/d/", DIR, b"")], False, "there twice"),
    ("no entry for rootfs", [NOTE, ROOTFS[1]], False, "must hold a manifest and a rootfs directory"),
    ("a symlink as rootfs", [NOTE, ("rootfs", SYMLINK, "/")], False, "neither the manifest nor below rootfs"),
    ("a way out", [NOTE, *ROOTFS, ("rootfs/../../x", FILE, b"")], False, "'..'"),
    ("bytes behind the JSON", [("manifest", FILE, MANIFEST + b"x"), *ROOTFS], False, "manifest"),
    ("two manifests in one", [("manifest", FILE, MANIFEST * 2), *ROOTFS], False, "manifest"),
    ("two manifests", [NOTE, NOTE, *ROOTFS], False, "there twice"),
    ("no manifest", ROOTFS, False, "must hold a manifest and a rootfs directory"),
    ("a manifest that is a link", [("manifest", SYMLINK, "rootfs/f"), *ROOTFS], False, "neither the manifest"),
    ("a hard link outside", [NOTE, *ROOTFS, ("rootfs/m", LINK, "/etc/passwd")], True, "outside rootfs"),
    ("a whiteout's name", [NOTE, *ROOTFS, ("rootfs/.wh.f", FILE, b"")], True, "begins with .wh."),
]


@pytest.mark.parametrize(("members", "words"), [row[1::2] for row in ROWS], ids=[row[0] for row in ROWS])
def test_archives_that_are_refused_also_where_actool_lets_them_pass(
    around: Surroundings, tmp_path: Path, members: list[tuple[str, bytes, bytes | str]], words: str
) -> None:
    aci(tmp_path / "x.aci", members)
    transport, rest = find(f"aci:{tmp_path}/x.aci")
    with pytest.raises(ImagetoolError) as refused, transport.source(rest, around):
        pass
    assert words in str(refused.value)
    assert str(tmp_path / "x.aci") in str(refused.value)


@pytest.mark.parametrize("name", [row[0] for row in ROWS if not row[2]])
def test_the_independent_checker_refuses_what_actool_does(tmp_path: Path, name: str) -> None:
    aci(tmp_path / "x.aci", next(row[1] for row in ROWS if row[0] == name))
    with pytest.raises((AssertionError, ValueError)):
        check_aci(tmp_path / "x.aci")


def test_what_an_aci_loses_is_told(around: Surroundings, tmp_path: Path, notes: Notes) -> None:
    tree = json.loads(MANIFEST) | {"dependencies": [{"imageName": "example.com/base"}], "pathWhitelist": ["/f"]}
    aci(tmp_path / "x.aci", [("manifest", FILE, json.dumps(tree).encode()), *ROOTFS])
    got(f"aci:{tmp_path}/x.aci", around)
    assert [line.split()[2] for line in notes if line.startswith("not carried:")] == ["dependencies", "pathWhitelist"]


def test_an_app_that_runs_as_the_owner_of_a_file_gets_its_numbers(around: Surroundings, tmp_path: Path) -> None:
    tree = json.loads(MANIFEST)
    tree["app"] |= {"user": "/link", "group": "/d/f"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, uid, gid in (("rootfs", DIR, 0, 0), ("rootfs/d", DIR, 1, 1), ("rootfs/d/f", FILE, 1000, 50)):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid = kind, uid, gid
            tar.addfile(member)
        member = tarfile.TarInfo("rootfs/link")
        member.type, member.linkname = SYMLINK, "/d/../d/f"
        tar.addfile(member)
        member = tarfile.TarInfo("manifest")
        member.size = len(raw := json.dumps(tree).encode())
        tar.addfile(member, io.BytesIO(raw))
    (tmp_path / "x.aci").write_bytes(out.getvalue())
    assert got(f"aci:{tmp_path}/x.aci", around)[0].config.run.user == "1000:50"
