"""A workshop with a base that has users, files and a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetool.oci.config import RunConfig
from tests.support.workshop import Workshop, file, folder, link


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.base(
        "base",
        folder("etc"),
        file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:101:201::/home/user:/bin/sh\n"),
        file("etc/group", "root:x:0:\nadm:x:4:\nusers:x:201:\n"),
        folder("there", 0o700, 9, 9),
        file("there/old", "old"),
        link("to", "/there"),
        run=RunConfig(cmd=("basecmd",), labels={"base": "1"}, env=("PATH=/bin", "A=1")),
    )
    return made
