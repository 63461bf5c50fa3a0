"""Our ACIs keep actool's rules, as an independent checker knows them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from tests.support.acicheck import check_aci
from tests.support.bases import store_with
from tests.support.command import imagetool

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox
RUN mkdir /d && echo x > /d/f && ln /d/f /d/h && ln -s f /d/s && mkfifo /d/fifo && chmod 6755 /d/f
ENV A.B-c=1 PLAIN="with space and = sign" A.B-c=2
EXPOSE 80 53/udp 8000-8002
VOLUME /data /data/sub /DATA
WORKDIR /d
USER 1000:50
LABEL org.example.Some_Label="ü"
MAINTAINER Someone <someone@example.com>
ENTRYPOINT ["cat"]
CMD ["f", "h"]
"""


@pytest.fixture
def store(busybox_base: Path, tmp_path: Path) -> Path:
    root = store_with(busybox_base, tmp_path)
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(DOCKERFILE)
    imagetool("build", "-t", "127.0.0.1:5000/Team/My_App:1.0".lower(), tmp_path / "context", root=root)
    return root


def test_an_aci_keeps_the_rules_and_its_id_is_that_of_the_tar(store: Path, tmp_path: Path) -> None:
    aci = tmp_path / "app.aci"
    name = "127.0.0.1:5000/team/my_app:1.0"
    identity = imagetool("convert", name, f"aci:{aci}", root=store).stdout.strip()
    found, manifest = check_aci(aci)
    assert found == identity
    app = manifest["app"]
    assert app["exec"] == ["cat", "f", "h"]
    assert (app["user"], app["group"], app["workingDirectory"]) == ("1000", "50", "/d")
    assert {"name": "A.B-c", "value": "2"} in app["environment"]
    assert {(port["name"], port["port"], port["protocol"]) for port in app["ports"]} == {
        ("80-tcp", 80, "tcp"),
        ("53-udp", 53, "udp"),
        ("8000-tcp", 8000, "tcp"),
        ("8001-tcp", 8001, "tcp"),
        ("8002-tcp", 8002, "tcp"),
    }
    assert [mount["path"] for mount in app["mountPoints"]] == ["/DATA", "/data", "/data/sub"]
    assert app["userLabels"] == {"org.example.Some_Label": "ü"}
    assert {label["name"]: label["value"] for label in manifest["labels"]}["version"] == "1.0"
    assert {"name": "authors", "value": "Someone <someone@example.com>"} in manifest["annotations"]


def test_the_same_image_makes_the_same_aci(store: Path, tmp_path: Path) -> None:
    name = "127.0.0.1:5000/team/my_app:1.0"
    for path in ("one", "two"):
        imagetool(
            "convert", name, f"aci:{tmp_path / path}", root=store, env={"TZ": "Asia/Tokyo"} if path == "two" else {}
        )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_aci_may_be_compressed_in_any_way(store: Path, tmp_path: Path, pack: object) -> None:
    aci, other = tmp_path / "app.aci", tmp_path / "other.aci"
    identity = imagetool("convert", "127.0.0.1:5000/team/my_app:1.0", f"aci:{aci}", root=store).stdout.strip()
    other.write_bytes(pack(gzip.decompress(aci.read_bytes())))  # type: ignore[operator]
    assert check_aci(other)[0] == identity
    imagetool("convert", f"aci:{other}", "back:1", root=store)
    before = json.loads(imagetool("inspect", "127.0.0.1:5000/team/my_app:1.0", root=store).stdout)
    after = json.loads(imagetool("inspect", "back:1", root=store).stdout)
    assert after["config"] == before["config"]
    again = tmp_path / "again.aci"
    imagetool("convert", "back:1", f"aci:{again}", root=store)
    check_aci(again)
