"""What crictl is given to make a pod and a container of an image under CRI-O or containerd.

Source: Kubernetes CRI v1, PodSandboxConfig and ContainerConfig.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from imagetool.errors import UsageError
from imagetool.oci.reference import Reference
from imagetool.runtime.bundles import shape
from imagetool.runtime.bundles.parts import BundleSource, require_os, write_text
from imagetool.runtime.bundles.shape import array, mapping, number, record, text

_NAMESPACE: Final = number(0, 3)  # POD, CONTAINER, NODE, TARGET
_NAMESPACES: Final = record({}, {"network": _NAMESPACE, "pid": _NAMESPACE, "ipc": _NAMESPACE})
_SECURITY: Final = record({}, {"namespace_options": _NAMESPACES, "readonly_rootfs": shape.flag})
_POD: Final = record(
    {"metadata": record({"name": text, "namespace": text, "uid": text}, {"attempt": shape.UINT32})},
    {"hostname": text, "labels": mapping(text), "linux": record({}, {"security_context": _SECURITY})},
)
_CONTAINER: Final = record(
    {"metadata": record({"name": text}, {"attempt": shape.UINT32}), "image": record({"image": text})},
    {
        "command": array(text),
        "args": array(text),
        "working_dir": text,
        "envs": array(record({"key": text, "value": text})),
        "labels": mapping(text),
        "linux": record({}, {"resources": record({}, {"oom_score_adj": number(-1000, 1000)})}),
    },
)
_NODE, _CONTAINER_OWN = 2, 1


def write_cri(source: BundleSource, folder: Path) -> None:
    """Write pod.json and container.json; the command is the image's own unless the caller wants another.

    The pod uses the node's network and needs no helper container, so it starts without CNI.
    """
    require_os(source, "linux", target="CRI-O")
    pod = {
        "metadata": {"name": source.label, "namespace": "default", "uid": source.label},
        "linux": {"security_context": {"namespace_options": {"network": _NODE, "pid": _CONTAINER_OWN}}},
    }
    wishes = source.wishes
    container = {
        "metadata": {"name": source.label},
        "image": {"image": storage_name(source.name)},
        "envs": [{"key": name, "value": value} for name, value in wishes.env.items()],
    }
    if wishes.entrypoint is not None:
        container["command"] = list(wishes.entrypoint)
    if wishes.args is not None:
        container["args"] = list(wishes.args)
    if wishes.cwd is not None:
        container["working_dir"] = wishes.cwd
    shape.check(_POD, pod, what="pod.json")
    shape.check(_CONTAINER, container, what="container.json")
    write_text(folder / "pod.json", json.dumps(pod, indent=1) + "\n")
    write_text(folder / "container.json", json.dumps(container, indent=1) + "\n")


def storage_name(name: str) -> str:
    """Return an image's full name, as containers-storage keeps it. Raises UsageError when it has none."""
    if name.startswith("sha256:"):
        raise UsageError("the image has no name, and CRI-O finds images by name; tag it first")
    return str(Reference.parse(name).with_default_tag())
