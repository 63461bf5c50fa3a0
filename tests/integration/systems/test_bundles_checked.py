"""Bundles for systems that no Linux host runs, judged by grammars, DTD and schema; and what no bundle may do."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.integration.systems.conftest import App
from tests.support.command import imagetool
from tests.support.grammars import ctidconf, jailconf, runtimespec, zonecfg

pytestmark = pytest.mark.root


def test_the_bundle_for_freebsd_says_the_same_three_times(app: App, tmp_path: Path) -> None:
    bundle = app.bundle(tmp_path / "b", "freebsd-jail")
    config = json.loads((bundle / "config.json").read_text())
    assert runtimespec.problems("freebsd", config["freebsd"]) == []
    (jail,) = jailconf.parse((bundle / "jail.conf").read_text())
    said = jail.parameters
    section, annotations = config["freebsd"]["jail"], config["annotations"]
    assert (section["vnet"], annotations["org.freebsd.jail.vnet"]) == ("new", "new")
    assert "vnet" in said
    assert said["enforce_statfs"] == [str(section["enforceStatfs"])]
    assert said["sysvshm"] == [section["sysvshm"]] == [annotations["org.freebsd.jail.sysvshm"]]
    assert ("allow.raw_sockets" in said) == section["allow"]["rawSockets"]
    assert said["path"] == [str(bundle / "rootfs")]
    (command,) = said["exec.start"] or []
    spoken = command.replace("cd /srv/app", "true").replace("/srv/app/speak", "-c 'echo $QUOTE'")
    ran = subprocess.run(["sh", "-c", spoken], capture_output=True, text=True, check=True)
    assert ran.stdout == 'it\'s "q"\n'
    assert config["ociVersion"] == "1.2.1", "the newest that the shipping runtime takes"
    assert {mount["type"] for mount in config["mounts"]} == {"devfs", "linprocfs", "linsysfs"}


@pytest.mark.peer
def test_the_bundle_for_solaris_is_a_zone_of_brand_lx(app: App, tmp_path: Path) -> None:
    if not shutil.which("xmllint"):
        pytest.skip("needs libxml2-utils")
    bundle = app.bundle(tmp_path / "b", "solaris-zone")
    config = json.loads((bundle / "config.json").read_text())
    assert runtimespec.problems("solaris", config["solaris"]) == []
    properties, resources = zonecfg.parse((bundle / f"{app.label}.zonecfg").read_text())
    assert properties["brand"] == "lx"
    assert resources == [("attr", {"name": "kernel-version", "type": "string", "value": "4.4"})]
    dtd = Path(zonecfg.__file__).with_name("zone.dtd")
    xml = bundle / f"{app.label}.xml"
    subprocess.run(["xmllint", "--noout", "--nonet", "--dtdvalid", str(dtd), str(xml)], check=True)
    assert f'name="{app.label}"' in xml.read_text()
    with tarfile.open(bundle / f"{app.label}.tar.gz") as tar:
        assert {"srv/app/speak", "data/seed"} <= set(tar.getnames())


def test_the_template_for_openvz_is_reproducible_and_named_in_its_configuration(app: App, tmp_path: Path) -> None:
    bundle = app.bundle(tmp_path / "b", "openvz", "--ctid", "204")
    said = ctidconf.parse((bundle / "conf/204.conf").read_text())
    template = bundle / f"template/cache/{said['OSTEMPLATE']}.tar.gz"
    with tarfile.open(template) as tar:
        assert tar.getmember("data/seed").gid == 77
    again = app.bundle(tmp_path / "c", "openvz") / f"template/cache/{template.name}"
    assert again.read_bytes() == template.read_bytes()


def test_the_bundle_for_kata_has_a_virtual_machine_and_a_runtime_class(app: App, tmp_path: Path) -> None:
    bundle = app.bundle(tmp_path / "b", "kata")
    config = json.loads((bundle / "config.json").read_text())
    assert runtimespec.problems("vm", config["vm"]) == []
    memory = config["annotations"]["io.katacontainers.config.hypervisor.default_memory"]
    assert int(memory) << 20 == config["vm"]["hwConfig"]["memory"]
    assert json.loads((bundle / "runtimeclass.json").read_text())["handler"] == "kata"


def test_the_aci_for_rkt_holds_exactly_a_manifest_and_a_root(app: App, tmp_path: Path) -> None:
    aci = app.bundle(tmp_path / "app.aci", "rkt")
    with tarfile.open(aci) as tar:
        names = tar.getnames()
        manifest = json.load(tar.extractfile("manifest"))  # type: ignore[arg-type]
    assert {name.split("/")[0] for name in names} == {"manifest", "rootfs"}
    assert manifest["name"] == f"example.test/team/{app.label}"
    assert {"name": "version", "value": "1"} in manifest["labels"]


def test_every_label_is_an_annotation_and_every_volume_a_seeded_mount(app: App, tmp_path: Path) -> None:
    bundle = app.bundle(tmp_path / "b", "oci")
    config = json.loads((bundle / "config.json").read_text())
    assert config["annotations"]["org.example.note"] == "a label"
    assert config["annotations"]["org.opencontainers.image.exposedPorts"] == "8080/tcp"
    assert config["annotations"]["org.opencontainers.image.stopSignal"] == "SIGTERM"
    (mount,) = [mount for mount in config["mounts"] if mount["type"] == "bind"]
    assert (mount["destination"], mount["source"]) == ("/data", "volumes/0-data")
    volume = bundle / mount["source"]
    status = volume.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o750, 1234, 77)
    assert (volume / "seed").read_text() == "seed\n"


def _hostile(app: App, tmp_path: Path, *steps: str) -> str:
    """Build an image on top of ours and return its name."""
    context = tmp_path / "hostile"
    context.mkdir()
    (context / "Dockerfile").write_text("\n".join([f"FROM {app.name}", *steps, ""]))
    name = f"{app.name.rpartition(':')[0]}:hostile-{tmp_path.name[-20:].strip('_-')}"
    imagetool("build", "-t", name, "--network", "none", context, root=app.root)
    return name


def test_a_mount_point_that_is_a_link_is_refused_and_leads_nowhere(app: App, tmp_path: Path) -> None:
    """Whichever way the link is written, and whatever the bundle is for: runtimes of today follow it."""
    canary = tmp_path / "canary"
    canary.mkdir()
    names = [_linked(app, tmp_path / "absolute", str(canary)), _linked(app, tmp_path / "relative", "../../canary")]
    for number, system in enumerate(("oci", "nspawn", "nspawn-oci", "lxc", "chroot", "kata")):
        name = names[number % 2]
        done = imagetool("bundle", name, tmp_path / "b", "--for", system, root=app.root, check=False)
        assert done.returncode == 1, done.stderr
        assert "/sys of the image is, or leads through, something else than a directory" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["absolute", "canary", "relative"]
    assert list(canary.iterdir()) == []


def _linked(app: App, context: Path, target: str) -> str:
    """Return an image whose /sys is a symlink."""
    context.mkdir()
    with tarfile.open(context / "sys.tar", "w") as tar:
        entry = tarfile.TarInfo("sys")
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        tar.addfile(entry)
    (context / "Dockerfile").write_text(
        f'FROM scratch\nADD sys.tar /\nCOPY --from={app.name} /bin /bin\nCMD ["/bin/sh"]\n'
    )
    name = f"{context.name}-{app.label}:1"
    imagetool("build", "-t", name, context, root=app.root)
    return name


def test_a_volume_below_a_link_is_mounted_where_the_link_leads_inside(app: App, tmp_path: Path) -> None:
    name = _hostile(app, tmp_path, "RUN ln -s /srv /alias", "VOLUME /alias/state")
    imagetool("bundle", name, tmp_path / "b", root=app.root)
    config = json.loads((tmp_path / "b/config.json").read_text())
    assert [mount["destination"] for mount in config["mounts"] if mount["type"] == "bind"] == ["/srv/state", "/data"]


def test_the_destination_must_be_new_and_stays_as_it_was(app: App, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/mine").write_text("kept")
    done = imagetool("bundle", app.name, tmp_path / "b", root=app.root, check=False)
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--for", "docker-desktop"), "'docker-desktop' is not one of 'oci'"),
        (("--user", "nobody"), "nobody"),
        (("--cmd", "'"), "No closing quotation"),
    ],
)
def test_wrong_wishes_leave_nothing_behind(app: App, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    done = imagetool("bundle", app.name, tmp_path / "b", *options, root=app.root, check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_image_for_another_system_is_not_bundled_for_linux(app: App, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "file").write_text("x")
    (context / "Dockerfile").write_text('FROM scratch\nCOPY file /bin/x\nCMD ["/bin/x"]\n')
    name = f"{app.label}-freebsd:1"
    imagetool("build", "--platform", "freebsd/amd64", "-t", name, context, root=app.root)
    options = ("--platform", "freebsd/amd64")
    done = imagetool("bundle", name, tmp_path / "b", *options, root=app.root, check=False)
    assert done.returncode == 2
    assert "is an image for freebsd" in done.stderr
    imagetool("bundle", name, tmp_path / "j", "--for", "freebsd-jail", *options, root=app.root)
    config = json.loads((tmp_path / "j/config.json").read_text())
    assert {mount["type"] for mount in config["mounts"]} == {"devfs"}
