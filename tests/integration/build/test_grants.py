"""Steps without a sandbox and with devices, in real containers: RUN --security, --device and --network=host."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.bases import store_with
from tests.support.command import imagetool

pytestmark = pytest.mark.root

SPEC = """\
cdiVersion: "0.6.0"
kind: example.com/dev
devices:
- name: nul
  containerEdits:
    env: [DEVICE=nul]
    deviceNodes:
    - {path: /dev/x/nul, hostPath: /dev/null}
    mounts:
    - {hostPath: HERE/library, containerPath: /library, options: [ro]}
- name: hooked
  containerEdits:
    hooks:
    - {hookName: createContainer, path: HERE/hook, args: [hook, one]}
"""


@pytest.fixture
def root(busybox_base: Path, tmp_path: Path) -> Path:
    return store_with(busybox_base, tmp_path)


def build(
    root: Path, text: str, *options: str, check: bool = True, cdi: Path | None = None
) -> subprocess.CompletedProcess[str]:
    context = root.parent / "context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(text)
    env = {"IMAGETOOL_CDI_DIRS": str(cdi or root.parent / "nowhere")}
    return imagetool("build", "--progress", "plain", *options, context, root=root, check=check, env=env)


def specs(tmp_path: Path) -> Path:
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/spec.yaml").write_text(SPEC.replace("HERE", str(tmp_path)))
    (tmp_path / "library").mkdir()
    (tmp_path / "library/file").write_text("from the host\n")
    (tmp_path / "hook").write_text(f"#!/bin/sh\ncat > {tmp_path}/state\n")
    (tmp_path / "hook").chmod(0o755)
    return tmp_path / "cdi"


INSECURE = """\
FROM busybox
RUN --security=insecure mkdir /m && mount -t tmpfs none /m && umount /m && rmdir /m
RUN --security=insecure grep -q '^Seccomp:[[:space:]]0' /proc/self/status && test ! -c /proc/kcore
RUN --security=insecure set -- $(grep ' /sys ' /proc/mounts); case $4 in rw*) ;; *) echo "$4"; exit 1;; esac
RUN ! mount -t tmpfs none /tmp 2>/dev/null
"""


@pytest.mark.parametrize("isolation", ["embedded", "oci"])
def test_a_step_without_a_sandbox_can_mount_and_the_others_cannot(root: Path, isolation: str) -> None:
    if isolation == "oci" and not shutil.which("runc"):
        pytest.skip("runc is not installed")
    done = build(root, INSECURE, "--isolation", isolation, "--network", "none", check=False)
    assert done.returncode == 1
    assert "Dockerfile:2: RUN --security=insecure is not allowed" in done.stderr
    assert "STEP" not in done.stderr
    build(root, INSECURE, "--isolation", isolation, "--network", "none", "--allow", "security.insecure")


def test_other_isolations_say_that_they_cannot(root: Path) -> None:
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    options = ("--isolation", "bwrap", "--network", "host", "--allow", "security.insecure")
    done = build(root, "FROM busybox\nRUN --security=insecure true\n", *options, check=False)
    assert done.returncode == 2
    assert "--isolation bwrap has no devices and no containers without a sandbox" in done.stderr


DEVICE = """\
FROM busybox
RUN --device=example.com/dev=nul,required test -c /dev/x/nul && echo gone > /dev/x/nul && \\
    cat /library/file > /seen && echo $DEVICE >> /seen
RUN --device=example.com/dev=none test ! -e /dev/x && cat /seen && test -z "$DEVICE"
"""


@pytest.mark.parametrize("isolation", ["embedded", "oci"])
def test_a_device_brings_its_files_mounts_and_variables_and_leaves_nothing(
    root: Path, tmp_path: Path, isolation: str
) -> None:
    if isolation == "oci" and not shutil.which("runc"):
        pytest.skip("runc is not installed")
    cdi = specs(tmp_path)
    options = ("--isolation", isolation, "--network", "none", "-o", f"type=local,dest={tmp_path}/out")
    done = build(root, DEVICE, *options, check=False, cdi=cdi)
    assert done.returncode == 1
    assert "RUN --device=example.com/dev=nul is not allowed" in done.stderr
    assert "--allow device=example.com/dev=nul" in done.stderr
    done = build(root, DEVICE, *options, "--allow", "device=example.com/dev", cdi=cdi)
    assert (tmp_path / "out/seen").read_text() == "from the host\nnul\n"
    assert not (tmp_path / "out/library").exists()
    assert "no CDI spec describes the device 'example.com/dev=none'" in done.stderr


def test_without_any_spec_a_required_device_is_told_with_its_place(root: Path) -> None:
    text = "FROM busybox\nRUN --device=nvidia.com/gpu=all,required nvidia-smi\n"
    done = build(root, text, "--allow", "device", check=False)
    assert done.returncode == 3
    assert "no CDI spec describes the device 'nvidia.com/gpu=all'; there are: none" in done.stderr
    assert "Dockerfile:2" in done.stderr


def test_hooks_of_a_device_are_run_by_an_oci_runtime_and_refused_elsewhere(root: Path, tmp_path: Path) -> None:
    if not shutil.which("runc"):
        pytest.skip("runc is not installed")
    cdi = specs(tmp_path)
    text = "FROM busybox\nRUN --device=example.com/dev=hooked true\n"
    done = build(root, text, "--network", "none", "--allow", "device", check=False, cdi=cdi)
    assert done.returncode == 2
    assert "runs no hooks, and a device has one at createContainer: use --isolation oci" in done.stderr
    build(root, text, "--network", "none", "--allow", "device", "--isolation", "oci", cdi=cdi)
    assert json.loads((tmp_path / "state").read_text())["status"] in ("created", "creating")


def test_the_hosts_network_is_for_who_may_have_it(root: Path) -> None:
    text = "FROM busybox\nRUN --network=host ls /sys/class/net\n"
    done = build(root, text, check=False)
    assert "--allow network.host" in done.stderr
    build(root, text, "--allow", "network.host")
    build(root, text, "--network", "host")
