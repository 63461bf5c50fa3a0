"""The blob that is read and sent, and its manifest."""

from __future__ import annotations

from imagetool.oci import mediatype
from imagetool.oci.descriptor import Descriptor

BLOB = bytes(range(256)) * 12000  # 3 MB


LAYER = Descriptor.of(BLOB, mediatype.OCI_LAYER)
