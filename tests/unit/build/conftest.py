"""What the tests of the build share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.workshop import Workshop, file, folder, link


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """A workshop with the base image `base`."""
    made = Workshop(tmp_path)
    passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:101:201:User:/home/user:/bin/sh\n1000:x:7:8::/odd:/bin/sh\n"
    made.base(
        "base",
        folder("etc"),
        file("etc/passwd", passwd),
        file("etc/group", "root:x:0:\nstaff:x:50:\nusers:x:201:\nextra:x:300:other,user\n"),
        folder("usr"),
        folder("usr/bin"),
        link("bin", "usr/bin"),
        file("usr/bin/sh", "shell", 0o755),
        folder("there", 0o700, 9, 9),
        folder("there/below", 0o750, 9, 9),
        file("there/old", "old"),
        link("dangling", "made/through"),
        link("etc/link", "/there"),
    )
    return made
