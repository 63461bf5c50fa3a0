"""Configs and the two conversions, as the tests of both call them."""

from __future__ import annotations

import json
from typing import Any

from imagetool.appc.manifest import ImageManifest
from imagetool.convert.appc import from_aci
from imagetool.oci.config import History, ImageConfig, RunConfig
from imagetool.oci.digest import Digest
from imagetool.oci.platform import Platform

DIFF_ID = Digest.of(b"a layer")


WHEN = "1980-01-01T00:00:00Z"


def config(run: RunConfig | None = None, platform: Platform | None = None, **parts: Any) -> ImageConfig:
    return ImageConfig.make(
        platform=platform or Platform(),
        run=run or RunConfig(),
        diff_ids=[DIFF_ID],
        history=[History("2020-01-01T00:00:00Z", "COPY . .")],
        created=parts.pop("created", "2020-01-01T00:00:00Z"),
        **parts,
    )


def back(tree: dict[str, Any]) -> tuple[ImageConfig, list[str]]:
    return from_aci(ImageManifest.parse(json.dumps(tree).encode()), diff_id=DIFF_ID, created=WHEN)


# -- ACIs of others ----------------------------------------------------------------------------


def foreign(**changes: Any) -> dict[str, Any]:
    """Return a manifest as another tool would write it."""
    tree: dict[str, Any] = {
        "acKind": "ImageManifest",
        "acVersion": "0.8.1",
        "name": "example.com/my--app",
        "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "aarch64"}],
        "app": {
            "exec": ["/bin/app", "-v"],
            "user": "100",
            "group": "0",
            "workingDirectory": "/srv",
            "environment": [{"name": "A", "value": "b=c"}, {"name": "EMPTY"}],
            "mountPoints": [{"name": "data", "path": "/data"}],
            "ports": [{"name": "web", "protocol": "tcp", "port": 80}],
            "userLabels": {"k": "v"},
        },
        "annotations": [{"name": "created", "value": "2015-05-05T05:05:05Z"}, {"name": "authors", "value": "Somebody"}],
    }
    return tree | changes
