"""What the tests of rules ask of an image."""

from __future__ import annotations

import pytest

from imagetool.errors import ImagetoolError
from imagetool.image.image import Image
from imagetool.oci.config import RunConfig
from tests.support.workshop import Workshop


def config(image: Image) -> RunConfig:
    return image.config.run


def created_by(image: Image) -> list[str]:
    return [entry.created_by for entry in image.config.history]


def refused(shop: Workshop, text: str, match: str | None = None) -> None:
    with pytest.raises(ImagetoolError, match=match):
        shop.build(text)
