"""What programs may import from `imagetool.api` goes away only on purpose."""

from __future__ import annotations

from imagetool import api


def test_the_verbs_of_the_public_face() -> None:
    assert sorted(api.__all__) == [
        "BuildOptions",
        "Workplace",
        "base",
        "build",
        "build_index",
        "check",
        "convert",
        "copy",
        "diff",
        "entries",
        "export",
        "graph",
        "login",
        "opened",
        "pull",
        "push",
        "remove",
        "repack",
        "squash",
        "tag",
        "unpack",
        "verify",
    ]
    assert all(getattr(api, name).__doc__ for name in api.__all__)
