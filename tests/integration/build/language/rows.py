"""The whole language, row by row: every instruction, directive, form of expansion and flag that builders have.

`ROWS` is the table of what a Dockerfile may say to BuildKit or buildah, and each row has a test that
says `@row`; a row without one fails. What builders differ in is in docs/reference/dockerfile.md. Rows
that are buildah's alone are refused by name, and the test shows how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from imagetool.errors import ImagetoolError
from imagetool.image.image import Image
from imagetool.oci.config import RunConfig
from tests.support.workshop import Workshop

ROWS = (
    # The language
    "18 instructions",
    "# syntax=",
    "# escape=",
    "# check=",
    "shebang, byte order mark, CRLF",
    "heredocs",
    "expansion with defaults",
    "expansion with removed prefixes and suffixes",
    "expansion with replacement",
    "comments and blank lines in continuations",
    "Containerfile.in and several files",
    # Flags
    "FROM --platform, AS, number, stage, named context",
    "FROM --after, FROM oci-archive:",
    "RUN --mount=type=bind",
    "RUN --mount=type=cache",
    "RUN --mount=type=tmpfs",
    "RUN --mount=type=secret",
    "RUN --mount=type=ssh",
    "RUN --network",
    "RUN --security",
    "RUN --device",
    "COPY/ADD --chown",
    "COPY/ADD --chmod",
    "COPY/ADD --link",
    "COPY/ADD --exclude",
    "COPY --parents",
    "COPY --from",
    "ADD of URL, Git repository, archive; --checksum, --keep-git-dir",
    "ADD --unpack",
    "HEALTHCHECK flags",
    "ARG: several, proxies, platforms, TARGETSTAGE",
)


TESTED: set[str] = set()


F = TypeVar("F", bound=Callable[..., None])


def row(*names: str) -> Callable[[F], F]:
    def note(function: F) -> F:
        assert set(names) <= set(ROWS), names
        TESTED.update(names)
        return function

    return note


def config(image: Image) -> RunConfig:
    return image.config.run


def refused(shop: Workshop, text: str, match: str, **request: Any) -> None:
    """See that a build fails for the last line, and says where that is."""
    with pytest.raises(ImagetoolError, match=match) as error:
        shop.build(text, **request)
    said = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
    assert f"Dockerfile:{len(text.splitlines())}" in said
