"""Flaws that others had in images, layers and caches, each tried on ours; and where the test of each known flaw is.

What concerns running containers is in test_runtime_escapes.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from imagetool.errors import ImagetoolError, InvalidArchive
from imagetool.layer.tarreader import read
from imagetool.layer.unpack import Ownership, unpack
from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor
from imagetool.oci.digest import Digest
from tests.support.bases import store_with
from tests.support.command import imagetool
from tests.support.tars import END, base256, chunks, extended, file, header, record
from tests.support.trees import describe

TESTS = Path(__file__).resolve().parents[1]
ESCAPES = "security/test_runtime_escapes.py"
LAYERS = "security/layer/test_links.py"
HERE = "security/test_flaws_of_others.py"

#: Every flaw of other builders and runtimes that we know of, and what tries it on ours.
FLAWS = {
    "CVE-2007-4559": (HERE, "test_cve_2007_4559_names_that_lead_out_of_the_directory"),
    "CVE-2018-15664": (LAYERS, "test_a_directory_that_turns_into_a_symlink_meanwhile_leads_nowhere"),
    "CVE-2019-5736": (ESCAPES, "test_cve_2019_5736_overwriting_the_interpreter"),
    "CVE-2020-15257": (
        ESCAPES,
        "test_cve_2020_15257_abstract_sockets_of_the_host_are_out_of_reach_without_its_network",
    ),
    "CVE-2021-29136": (HERE, "test_cve_2021_29136_the_root_of_a_layer_is_a_link_out"),
    "CVE-2021-30465": (ESCAPES, "test_cve_2021_30465_mount_points_that_another_container_swaps"),
    "CVE-2021-32760": (HERE, "test_cve_2021_32760_a_mode_set_through_a_link"),
    "CVE-2021-41190": (HERE, "test_cve_2021_41190_a_document_that_is_a_manifest_and_an_index"),
    "CVE-2022-27651": (ESCAPES, "test_cve_2022_27651_no_inheritable_and_no_ambient_capabilities"),
    "CVE-2022-29162": (ESCAPES, "test_cve_2022_27651_no_inheritable_and_no_ambient_capabilities"),
    "CVE-2023-27561": (ESCAPES, "test_cve_2023_27561_mount_points_below_links_stay_inside"),
    "CVE-2023-28642": (ESCAPES, "test_cve_2026_41579_an_images_system_directory_is_a_link_to_the_host"),
    "CVE-2024-1753": (ESCAPES, "test_cve_2024_1753_a_mounted_directory_of_a_stage_is_a_link_to_the_host"),
    "CVE-2024-3727": (HERE, "test_cve_2024_3727_a_digest_that_is_a_path"),
    "CVE-2024-9407": (ESCAPES, "test_cve_2024_9407_mounts_of_a_step_never_propagate"),
    "CVE-2024-9675": (ESCAPES, "test_cve_2024_9675_the_id_of_a_cache_leads_nowhere_else"),
    "CVE-2024-9676": (ESCAPES, "test_cve_2024_9676_a_passwd_of_the_image_that_leads_elsewhere_or_hangs"),
    "CVE-2024-11218": (ESCAPES, "test_cve_2024_23651_a_directory_that_a_parallel_stage_swaps_while_it_is_mounted"),
    "CVE-2024-21626": (ESCAPES, "test_cve_2024_21626_a_working_directory_through_a_leaked_descriptor"),
    "CVE-2024-23650": ("property/test_dockerfile_fuzz.py", "test_a_dockerfile_of_any_bytes_is_read_or_refused"),
    "CVE-2024-23651": (ESCAPES, "test_cve_2024_23651_a_directory_that_a_parallel_stage_swaps_while_it_is_mounted"),
    "CVE-2024-23652": (ESCAPES, "test_cve_2024_23652_a_stub_that_the_step_replaces_is_not_cleaned_up_on_the_host"),
    "CVE-2024-23653": (ESCAPES, "test_cve_2024_23653_privileges_are_not_for_the_dockerfile_to_take"),
    "CVE-2024-24557": (HERE, "test_cve_2024_24557_a_step_is_cached_for_all_that_it_depends_on"),
    "CVE-2024-45310": (ESCAPES, "test_cve_2021_30465_mount_points_that_another_container_swaps"),
    "CVE-2025-4138": (LAYERS, "test_nothing_is_done_through_a_symlink_that_leads_out"),
    "CVE-2025-4330": (LAYERS, "test_nothing_is_done_through_a_symlink_that_leads_out"),
    "CVE-2025-4517": (LAYERS, "test_a_chain_of_symlinks_as_long_as_a_path_can_be_stays_inside"),
    "CVE-2025-8194": (HERE, "test_cve_2025_8194_sizes_below_zero_end"),
    "CVE-2025-31133": (ESCAPES, "test_cve_2025_31133_a_null_device_of_the_image_is_never_bound"),
    "CVE-2025-52565": (ESCAPES, "test_cve_2025_31133_a_null_device_of_the_image_is_never_bound"),
    "CVE-2025-52881": (ESCAPES, "test_cve_2025_31133_a_null_device_of_the_image_is_never_bound"),
    "CVE-2026-15809": (ESCAPES, "test_cve_2026_15809_a_home_with_a_newline_is_not_taken"),
    "CVE-2026-31431": (
        ESCAPES,
        "test_cve_2026_31431_the_kernels_crypto_and_the_hypervisor_have_no_sockets",
    ),
    "CVE-2026-33747": ("integration/build/contexts/test_git.py", "test_hooks_and_filters_of_a_repository_do_not_run"),
    "CVE-2026-33748": (
        "integration/build/contexts/test_git.py",
        "test_a_directory_of_a_repository_does_not_lead_out_of_it",
    ),
    "CVE-2026-41567": (HERE, "test_cve_2026_41567_no_program_unpacks_for_us"),
    "CVE-2026-41579": (ESCAPES, "test_cve_2026_41579_an_images_system_directory_is_a_link_to_the_host"),
    "CVE-2026-42306": (ESCAPES, "test_cve_2024_23651_a_directory_that_a_parallel_stage_swaps_while_it_is_mounted"),
    "CVE-2026-44517": (ESCAPES, "test_cve_2026_44517_links_of_the_context_take_in_nothing_from_outside"),
    "CVE-2026-53488": (HERE, "test_cve_2026_53488_labels_that_runtimes_obey_stay_in_the_image"),
    "CVE-2026-55686": (ESCAPES, "test_cve_2026_55686_a_working_directory_below_a_link_is_made_inside"),
    "CVE-2026-57231": (ESCAPES, "test_cve_2026_57231_the_hosts_environment_is_never_taken"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_known_flaw_has_a_test(flaw: str) -> None:
    path, name = FLAWS[flaw]
    defined = {node.name for node in ast.parse((TESTS / path).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert name in defined


def test_each_test_named_after_a_flaw_is_in_the_table() -> None:
    for path in (ESCAPES, HERE):
        for node in ast.parse((TESTS / path).read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_cve_"):
                _, _, year, number, *_ = node.name.split("_")
                assert f"CVE-{year}-{number}" in FLAWS


# -- Layers ----------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A canary beside the target; nothing in it may change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("canary")
    (folder / "file").chmod(0o600)
    before, links = describe(folder), os.lstat(folder / "file").st_nlink
    (tmp_path / "target").mkdir()
    yield folder
    assert describe(folder) == before
    assert os.lstat(folder / "file").st_nlink == links
    assert sorted(os.listdir(tmp_path)) == ["outside", "target"]


def unpacked(outside: Path, *layers: bytes) -> bool:
    """Unpack; say whether that was taken. A refusal must be one line."""
    said = ""
    try:
        for layer in layers:
            unpack(
                read(chunks(layer + END), where="layer"),
                outside.with_name("target"),
                where="layer",
                ownership=Ownership(lenient=os.geteuid() != 0),
                warn=lambda _: None,
            )
    except ImagetoolError as refusal:
        said = str(refusal)
    assert "\n" not in said
    return not said


@pytest.mark.parametrize("name", [b"../outside/file", b"a/../../outside/file", b"./../outside/new", b".."])
@pytest.mark.parametrize("flag", [b"0", b"2", b"5", b"6"])
def test_cve_2007_4559_names_that_lead_out_of_the_directory(outside: Path, name: bytes, flag: bytes) -> None:
    assert not unpacked(outside, header(name, flag, linkname=b"x"))


@pytest.mark.parametrize("name", [b".", b"./", b"/", b"/."])
@pytest.mark.parametrize("flag", [b"2", b"1"])
def test_cve_2021_29136_the_root_of_a_layer_is_a_link_out(outside: Path, name: bytes, flag: bytes) -> None:
    target = os.fsencode(outside)
    link = extended(b"x", record(b"linkpath", target)) + header(name, flag, linkname=b"x")
    assert not unpacked(outside, link + file(b"file", b"overwritten"))
    assert not unpacked(outside, link, file(b"file", b"overwritten"))
    assert outside.with_name("target").is_dir()
    assert not outside.with_name("target").is_symlink()


def test_cve_2021_32760_a_mode_set_through_a_link(outside: Path) -> None:
    """A hard link to a symlink out, then an entry that sets a mode: of the link, not of what it shows."""
    there = os.fsencode(outside / "file")
    out = extended(b"x", record(b"linkpath", there)) + header(b"out", b"2", linkname=b"x", mode=0o777)
    hard = header(b"hard", b"1", linkname=b"out", mode=0o4777)
    unpacked(outside, out + hard)
    unpacked(outside, out, hard, header(b"out", b"1", linkname=b"hard", mode=0o4777))
    unpacked(outside, out + header(b"out/", b"5", mode=0o777))


NEGATIVE = {
    "a size": header(b"a", size=base256(-512, 12)),
    "the size of a long name": header(b"a", b"L", size=base256(-1024, 12)),
    "the size of an extended header": header(b"a", b"x", size=base256(-1024, 12)),
    "a size in an extended header": extended(b"x", record(b"size", b"-512")) + header(b"a"),
    "a hole of GNU's": header(b"a", b"S", size=base256(-(1 << 40), 12)),
}


@pytest.mark.parametrize("case", NEGATIVE)
def test_cve_2025_8194_sizes_below_zero_end(case: str) -> None:
    with pytest.raises(InvalidArchive):
        list(map(list, (content for _, content in read(chunks(NEGATIVE[case] + file(b"b") + END), where="layer"))))


# -- Documents -------------------------------------------------------------------------------------

EMPTY = Digest.of(b"{}")
PATHS = ["sha256:../../../outside/file", "../outside/file", "sha256:/etc/passwd", "sha256:" + "../" * 21 + "x", "a:b"]


def layout(folder: Path, root: dict[str, object], *blobs: bytes) -> Path:
    """Write an OCI layout with an index of one entry."""
    (folder / "blobs/sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "manifests": [root]}
    (folder / "index.json").write_text(json.dumps(index))
    for blob in blobs:
        (folder / "blobs/sha256" / Digest.of(blob).hex).write_bytes(blob)
    return folder


def refused(tmp_path: Path, source: Path) -> None:
    """Copy an image, which must be refused in one line that has nothing of the canary's."""
    for command in (["copy", f"oci:{source}", f"oci:{tmp_path}/out:x"], ["inspect", f"oci:{source}"]):
        done = imagetool(*command, root=tmp_path / "store", check=False)
        assert done.returncode == 6, done.stderr
        assert "Traceback" not in done.stderr
        assert "canary" not in done.stdout + done.stderr
    index = tmp_path / "out/index.json"
    assert not index.exists() or json.loads(index.read_text())["manifests"] == []


@pytest.mark.parametrize("digest", PATHS)
@pytest.mark.parametrize("of", ["manifest", "config", "layer"])
def test_cve_2024_3727_a_digest_that_is_a_path(tmp_path: Path, digest: str, of: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("canary")
    bad = {"mediaType": mediatype.OCI_CONFIG, "digest": digest, "size": 6}
    good = Descriptor(mediatype.OCI_CONFIG, EMPTY, 2).tree()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": bad if of == "config" else good,
            "layers": [bad] if of == "layer" else [],
        }
    ).encode()
    root = Descriptor.of(manifest, mediatype.OCI_MANIFEST).tree()
    if of == "manifest":
        root = {**bad, "mediaType": mediatype.OCI_MANIFEST}
    refused(tmp_path, layout(tmp_path / "source", root, manifest, b"{}"))


@pytest.mark.parametrize("claimed", [mediatype.OCI_MANIFEST, mediatype.OCI_INDEX])
@pytest.mark.parametrize("said", [mediatype.OCI_MANIFEST, mediatype.OCI_INDEX, None])
def test_cve_2021_41190_a_document_that_is_a_manifest_and_an_index(
    tmp_path: Path, claimed: str, said: str | None
) -> None:
    one = Descriptor(mediatype.OCI_CONFIG, EMPTY, 2).tree()
    both = {"schemaVersion": 2, "config": one, "layers": [], "manifests": [], **({"mediaType": said} if said else {})}
    raw = json.dumps(both).encode()
    root = Descriptor.of(raw, claimed).tree()
    refused(tmp_path, layout(tmp_path / "source", root, raw, b"{}"))


# -- Builds ----------------------------------------------------------------------------------------


def build(root: Path, folder: Path, text: str, *options: str, env: dict[str, str] | None = None) -> str:
    """Build a Dockerfile as x; return what was said."""
    (folder / "Dockerfile").write_text(text)
    return imagetool("build", "-t", "x", "--progress", "plain", *options, folder, root=root, env=env).stderr


RUN = "RUN echo x > /file\n"
DIFFERENT = {
    "environment": f"FROM busybox\nENV A=evil\n{RUN}",
    "arguments": f"FROM busybox\nARG A=other\n{RUN}",
    "shell": f'FROM busybox\nSHELL ["/bin/sh", "-ec"]\n{RUN}',
    "user": f"FROM busybox\nUSER 7\nWORKDIR /tmp\n{RUN.replace('/file', '/tmp/file')}",
    "directory": f"FROM busybox\nWORKDIR /tmp\n{RUN}",
    "parent": f"FROM busybox\nCOPY a /a\n{RUN}",
    "network": f"FROM busybox\n{RUN.replace('RUN', 'RUN --network=none')}",
    "mounts": f"FROM busybox\n{RUN.replace('RUN', 'RUN --mount=type=tmpfs,target=/t')}",
    "words": 'FROM busybox\nRUN ["/bin/sh", "-c", "echo x >  /file"]\n',
}


@pytest.mark.root
def test_cve_2024_24557_a_step_is_cached_for_all_that_it_depends_on(busybox_base: Path, tmp_path: Path) -> None:
    root, context = store_with(busybox_base, tmp_path), tmp_path / "context"
    context.mkdir()
    (context / "a").write_text("good")
    poison = f"FROM busybox\n{RUN}"
    build(root, context, poison)
    assert "Using cache" in build(root, context, poison)
    for what, text in DIFFERENT.items():
        *_, last = build(root, context, text).strip().splitlines()
        assert "Using cache" not in last, what
    layers = set()
    for content, options in (("good", ""), ("evil", ""), ("evil", "--chmod=4755"), ("evil", "--chown=7:7")):
        (context / "a").write_text(content)
        said = build(root, context, f"FROM scratch\nCOPY {options} a /a\n")
        assert "Using cache" not in said
        shown = json.loads(imagetool("inspect", "x", root=root).stdout)
        layers.add(str(shown["layers"]))
    assert len(layers) == 4


PROGRAMS = "gzip gunzip pigz unpigz zcat xz unxz xzcat zstd unzstd zstdcat bzip2 bunzip2 tar bsdtar cp mv chroot sh"
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.root
def test_cve_2026_41567_no_program_unpacks_for_us(busybox_base: Path, tmp_path: Path) -> None:
    """Neither a program of the image, which its PATH names first, nor one of the host's."""
    root, context = store_with(busybox_base, tmp_path), tmp_path / "context"
    (context / "evil").mkdir(parents=True)
    marker = tmp_path / "was-run"
    for name in PROGRAMS.split():
        program = context / "evil" / name
        script = f'/bin/busybox touch {marker} /was-run; exec /bin/busybox {name} "$@"'
        program.write_text(f"#!/bin/busybox sh\n{script}\n")
        program.chmod(0o755)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("member"))
    for kind, pack in PACKED.items():
        (context / f"{kind}.tar.{kind}").write_bytes(pack(archive.getvalue()))
    adds = "".join(f"ADD {kind}.tar.{kind} /{kind}/\n" for kind in PACKED)
    text = f"""FROM busybox
COPY evil /evil
ENV PATH=/evil:/bin
COPY evil /usr/bin
{adds}COPY --from=busybox /bin/busybox /copy
RUN ["/bin/busybox", "test", "!", "-e", "/was-run", "-a", "-e", "/gz/member", "-a", "-e", "/zst/member"]
"""
    env = {"PATH": str(context / "evil")}
    for compression in ("gzip", "zstd"):
        build(root, context, text, "--no-cache", "--compression", compression, env=env)
        done = imagetool("run", "x", "/bin/busybox", "test", "!", "-e", "/was-run", root=root, env=env)
        assert done.returncode == 0
        imagetool("bundle", "x", tmp_path / f"bundle-{compression}", "--for", "oci", root=root, env=env)
        assert not (tmp_path / f"bundle-{compression}/rootfs/was-run").exists()
    assert not marker.exists()


CONTROLLING = {
    "io.katacontainers.config.hypervisor.path": "/rootfs/evil",
    "io.katacontainers.config.hypervisor.default_memory": "1",
    "run.oci.handler": "wasm",
    "run.oci.hooks.stderr": "/etc/evil",
    "org.systemd.property.ExecStopPost": "'evil'",
    "org.freebsd.jail.allow.mount": "true",
    "org.freebsd.parentJail": "host",
    "io.kubernetes.cri-o.userns-mode": "host",
    "io.containerd.runc.v2.group": "evil",
    "IO.Kubernetes.cri-o.Devices": "/dev/sda",
}


@pytest.mark.root
def test_cve_2026_53488_labels_that_runtimes_obey_stay_in_the_image(busybox_base: Path, tmp_path: Path) -> None:
    root, context = store_with(busybox_base, tmp_path), tmp_path / "context"
    context.mkdir()
    labels = "".join(f'LABEL "{name}"="{value}"\n' for name, value in {**CONTROLLING, "org.example.x": "y"}.items())
    build(root, context, f'FROM busybox AS base\n{labels}FROM base\nCMD ["/bin/true"]\n')
    config = json.loads(imagetool("inspect", "x", "--config", root=root).stdout)
    assert CONTROLLING.items() <= config["config"]["Labels"].items()
    for system in ("oci", "kata"):
        imagetool("bundle", "x", tmp_path / system, "--for", system, root=root)
        annotations = json.loads((tmp_path / system / "config.json").read_text())["annotations"]
        assert annotations["org.example.x"] == "y"
        assert not [name for name, value in CONTROLLING.items() if annotations.get(name) == value]
