"""Annotations of a layer's descriptor that say where things are in its very bytes.

They make partial pulls possible, and are wrong for any other blob, also for the same tar
compressed anew.

Source: containers/storage, docs/containers-storage-zstd-chunked.md; stargz-snapshotter, docs/estargz.md.
"""

from __future__ import annotations

from typing import Final

from imagetool.oci.descriptor import Descriptor

#: Digest of the table of contents of zstd:chunked, as it is stored (compressed).
CHUNKED_CHECKSUM: Final = "io.github.containers.zstd-chunked.manifest-checksum"
#: OFFSET:LENGTH:UNCOMPRESSED LENGTH:TYPE of that table.
CHUNKED_POSITION: Final = "io.github.containers.zstd-chunked.manifest-position"
#: OFFSET:LENGTH:UNCOMPRESSED LENGTH of what makes the tar again of the files.
CHUNKED_TAR_SPLIT: Final = "io.github.containers.zstd-chunked.tarsplit-position"
#: The first two as they were called until 2023: what Debian 12's podman and stargz-snapshotter look for.
OLD_NAMES: Final = {
    CHUNKED_CHECKSUM: "io.containers.zstd-chunked.manifest-checksum",
    CHUNKED_POSITION: "io.containers.zstd-chunked.manifest-position",
}
#: Digest of the JSON of the table of contents of an eStargz layer.
STARGZ_TOC: Final = "containerd.io/snapshot/stargz/toc.digest"
STARGZ_SIZE: Final = "io.containers.estargz.uncompressed-size"

OF_THE_BYTES: Final = frozenset(
    {CHUNKED_CHECKSUM, CHUNKED_POSITION, CHUNKED_TAR_SPLIT, STARGZ_TOC, STARGZ_SIZE}
    | {"io.github.containers.zstd-chunked.tarsplit-checksum", *OLD_NAMES.values()}
)


def is_chunked(descriptor: Descriptor) -> bool:
    """Say whether a layer claims to be zstd:chunked."""
    return CHUNKED_CHECKSUM in descriptor.annotations or OLD_NAMES[CHUNKED_CHECKSUM] in descriptor.annotations
