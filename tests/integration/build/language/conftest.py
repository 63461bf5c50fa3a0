"""A workshop with a base that has users."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.oci.config import RunConfig
from tests.support.workshop import Workshop, file, folder


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.base(
        "base",
        folder("etc"),
        file("etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:101:201::/home/user:/bin/sh\n"),
        file("etc/group", "root:x:0:\nadm:x:4:\n"),
        run=RunConfig(cmd=("basecmd",), env=("PATH=/bin",)),
    )
    return made
