"""A runtime-spec bundle: config.json and rootfs, for runc, crun, youki, containerd, and Kata with a `vm` section.

Source: runtime-spec v1.2 bundle.md, config.md, config-vm.md; image-spec v1.1 conversion.md.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from imagetool.runtime.bundles.configshape import check_config
from imagetool.runtime.bundles.parts import (
    SYSTEM_FOLDERS,
    BundleSource,
    require_os,
    require_plain,
    write_rootfs,
    write_text,
    write_volumes,
)
from imagetool.runtime.imageprocess import ImageProcess, annotations_of
from imagetool.runtime.network import NONE
from imagetool.runtime.sandbox import Sandbox
from imagetool.runtime.security import CONTAINER_CAPABILITIES, Security
from imagetool.runtime.spec import Mount, build_step_spec
from imagetool.values import dataclass

NSPAWN_VERSION: Final = "1.0.0"  # the only one that systemd-nspawn 252 takes


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """The guest that a VM-based runtime boots; where Kata's own packages put things by default."""

    kernel: str = "/usr/share/kata-containers/vmlinux.container"
    image: str = "/usr/share/kata-containers/kata-containers.img"
    hypervisor: str = "/usr/bin/qemu-system-x86_64"
    memory: int = 2048 << 20
    vcpus: int = 1


def plain_config(source: BundleSource, process: ImageProcess, *, version: str) -> dict[str, Any]:
    """Return what the configs of every system say: the process, its root and its host name, and nothing of Linux."""
    return {
        "ociVersion": version,
        "process": {
            "terminal": False,
            "user": {
                "uid": process.user.uid,
                "gid": process.user.gid,
                "additionalGids": list(process.user.additional_gids),
            },
            "args": list(process.args),
            "env": [f"{name}={value}" for name, value in process.env.items()],
            "cwd": process.cwd,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": source.label,
    }


def write_oci(source: BundleSource, folder: Path) -> None:
    """Write config.json, rootfs and, for an image with volumes, a directory for each."""
    require_os(source, "linux", target="a Linux runtime")
    write_config(folder, _tree(source, folder))


def write_nspawn_oci(source: BundleSource, folder: Path) -> None:
    """Write the flavour that `systemd-nspawn --oci-bundle` takes: version 1.0.0, nothing that needs D-Bus."""
    require_os(source, "linux", target="systemd-nspawn")
    tree = _tree(source, folder)
    tree["ociVersion"] = NSPAWN_VERSION
    tree["process"]["user"].pop("umask", None)  # came with 1.1
    tree["linux"].pop("resources", None)
    tree["linux"].pop("seccomp", None)  # it has its own filter, and does not know every name of ours
    for mount in tree["mounts"]:
        if mount["type"] == "bind":
            mount["options"] = ["rbind"]  # it refuses "rw"
    write_config(folder, tree)


def write_kata(source: BundleSource, folder: Path) -> None:
    """Write a bundle with a `vm` section, Kata's annotations, and the RuntimeClass for Kubernetes."""
    require_os(source, "linux", target="Kata")
    machine = VirtualMachine()
    tree = _tree(source, folder)
    tree["vm"] = {
        "hypervisor": {"path": machine.hypervisor},
        "kernel": {"path": machine.kernel},
        "image": {"path": machine.image, "format": "raw"},
        "hwConfig": {"vcpus": machine.vcpus, "memory": machine.memory},
    }
    tree["annotations"] |= {
        "io.katacontainers.config.hypervisor.default_memory": str(machine.memory >> 20),
        "io.katacontainers.config.hypervisor.default_vcpus": str(machine.vcpus),
    }
    write_config(folder, tree)
    runtime_class = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": "kata"},
        "handler": "kata",
    }
    write_text(folder / "runtimeclass.json", json.dumps(runtime_class, indent=1) + "\n")


def write_config(folder: Path, tree: dict[str, Any]) -> None:
    """Check a config.json and write it."""
    check_config(tree)
    write_text(folder / "config.json", json.dumps(tree, indent=1) + "\n")


def _tree(source: BundleSource, folder: Path) -> dict[str, Any]:
    """Unpack the image and describe its container."""
    rootfs = folder / "rootfs"
    write_rootfs(source, rootfs)
    volumes = write_volumes(source, rootfs, folder / "volumes")
    require_plain(rootfs, SYSTEM_FOLDERS)
    process = source.process(rootfs)
    spec = build_step_spec(
        args=process.args,
        env=process.env,
        cwd=process.cwd,
        user=process.user,
        hostname=source.label,
        # A relative source is relative to the bundle, so that the bundle can be moved.
        mounts=[Mount(place, "bind", f"volumes/{name}", ("rbind", "rw")) for name, place in volumes],
        network=NONE,
        sandbox=Sandbox(Security(CONTAINER_CAPABILITIES)),
    )
    tree: dict[str, Any] = json.loads(spec.json())
    tree["annotations"] = annotations_of(source.image.config)
    if source.rootless:
        tree["linux"]["namespaces"].append({"type": "user"})
        tree["linux"]["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        tree["linux"]["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    else:
        tree["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return tree
