"""A store with an image to unpack."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import imagetool


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with an image of two layers, `app`."""
    context = tmp_path / "context"
    (context / "etc").mkdir(parents=True)
    (context / "etc" / "conf").write_text("one\n")
    (context / "run").write_text("#!/bin/sh\n")
    (context / "run").chmod(0o4755)
    (context / "Dockerfile").write_text(
        'FROM scratch\nCOPY etc /etc\nCOPY --chown=1000:50 run /bin/run\nCMD ["/bin/run"]\n'
    )
    root = tmp_path / "store"
    imagetool("build", "-t", "app", context, root=root)
    return root
