"""`aci:FILE` as a transport: wherever an image is read or written, not only in `convert`."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from tests.support.acicheck import check_aci
from tests.support.command import imagetool


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    (tmp_path / "context").mkdir()
    (tmp_path / "context/file").write_text("content\n")
    (tmp_path / "context/Dockerfile").write_text(
        'FROM scratch\nCOPY file /dir/file\nLABEL a=b\nSTOPSIGNAL 9\nCMD ["/dir/file"]\n'
    )
    imagetool("build", "-t", "team/app:2", tmp_path / "context", root=root)
    return root


def test_an_aci_is_copied_to_and_from_like_any_other_place(store: Path, tmp_path: Path) -> None:
    aci = tmp_path / "app.aci"
    done = imagetool("copy", "team/app:2", f"aci:{aci}", root=store)
    assert "not carried: StopSignal" in done.stderr
    check_aci(aci)
    digest = imagetool("copy", f"aci:{aci}", f"oci:{tmp_path}/layout:x", root=store).stdout.strip()
    shown = json.loads(imagetool("inspect", f"aci:{aci}", root=store).stdout)
    assert shown["digest"] == digest
    wanted = json.loads(imagetool("inspect", "team/app:2", root=store).stdout)
    assert shown["config"] == wanted["config"]
    assert "FAILED" not in imagetool("verify", f"aci:{aci}", root=store).stdout
    assert not list((store / "scratch").iterdir())


def test_the_converted_image_is_named_as_the_reference_says(store: Path, tmp_path: Path) -> None:
    aci = tmp_path / "x.aci"
    assert imagetool("convert", "team/app:2", f"aci:{aci}", root=store).stdout.startswith("sha512-")
    with tarfile.open(aci) as archive:
        member = archive.extractfile("manifest")
        assert member is not None
        manifest = json.load(member)
    assert manifest["name"] == "team/app"
    assert {"name": "version", "value": "2"} in manifest["labels"]


def test_an_image_that_has_a_path_and_no_name_is_named_after_the_aci(store: Path, tmp_path: Path) -> None:
    imagetool("copy", "team/app:2", f"oci:{tmp_path}/layout:2", root=store)
    imagetool("convert", f"oci:{tmp_path}/layout:2", f"aci:{tmp_path}/Some App.aci", root=store)
    _, manifest = check_aci(tmp_path / "Some App.aci")
    assert manifest["name"] == "some-app"


def test_what_is_no_aci_is_one_clear_error(store: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.aci").write_bytes(b"not a tar at all" * 100)
    done = imagetool("inspect", f"aci:{tmp_path}/bad.aci", root=store, check=False)
    assert done.returncode == 6
    assert done.stderr.count("\n") == 1
    assert "bad.aci" in done.stderr
